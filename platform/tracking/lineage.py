"""Registered versions together with the datasets that their runs have recorded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from derain.tracking.registry import ModelVersion, models, named
from derain.tracking.store import mlflow, reader_of, storage_errors, tracking_uri

CONTEXT = "mlflow.data.context"
SHARE = "data.validation_share"


@dataclass(frozen=True)
class RecordedDataset:
    """A prepared dataset, or a part of one, that a run has read."""

    role: str
    """train, validation or test; runs before there were three roles have recorded eval."""
    name: str
    folder: str
    """Where it was: a path of the machine that trained, or an address."""
    sha256: str


@dataclass(frozen=True)
class Lineage:
    """A registered version and what its run has recorded."""

    version: ModelVersion
    datasets: tuple[RecordedDataset, ...]
    """Empty if its run is no longer in the store."""
    validation_share: float | None
    """What was split off the training images if no validation images were named."""

    def role(self, *names: str) -> list[RecordedDataset]:
        """The datasets of some roles."""
        return [dataset for dataset in self.datasets if dataset.role in names]


def lineages(uri: str | None = None) -> list[Lineage]:
    """All registered versions with their datasets, sorted by name and version.

    A version whose run was deleted has no datasets. Raises StorageError if the store does not
    answer.
    """
    uri = uri or tracking_uri()
    versions = models(uri)
    if not versions:
        return []
    client = reader_of(uri)
    runs = {run_id: _run(client, uri, run_id) for run_id in {it.run_id for it in versions}}
    return [_lineage(version, runs[version.run_id]) for version in versions]


def find_version(model: str, uri: str | None = None) -> ModelVersion | None:
    """The registered version at models:/NAME@ALIAS or models:/NAME/VERSION, None if there is none.

    Raises StorageError if the store does not answer.
    """
    name, alias, version = named(model)
    for found in models(uri):
        if found.name == name and (alias in found.aliases or version == found.version):
            return found
    return None


def _run(client: Any, uri: str, run_id: str | None) -> Any | None:
    """MLflow's run, None if it was deleted for good."""
    try:
        with storage_errors(uri):
            return client.get_run(run_id) if run_id else None
    except mlflow().exceptions.MlflowException:
        return None


def _lineage(version: ModelVersion, run: Any | None) -> Lineage:
    if run is None:
        return Lineage(version, (), None)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    share = run.data.params.get(SHARE)
    return Lineage(version, tuple(map(_dataset, inputs)), number(share))


def _dataset(recorded: Any) -> RecordedDataset:
    tags: Mapping[str, str] = {tag.key: tag.value for tag in recorded.tags}
    try:
        source = json.loads(recorded.dataset.source)
    except (ValueError, TypeError, RecursionError):
        source = None
    source = source if isinstance(source, dict) else {}  # that of another program
    return RecordedDataset(
        role=tags.get(CONTEXT, ""),
        name=recorded.dataset.name,
        folder=source.get("uri", ""),
        sha256=source.get("manifest_sha256", ""),
    )


def number(text: str | None) -> float | None:
    """The number in a tag or a parameter, which anybody can edit; None if it is none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
