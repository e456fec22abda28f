"""Where and how a run is recorded in MLflow."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from derain.config import Config
from derain.data.prepared.roles import ROLES, names_of, open_role
from derain.evaluation.protocols import identity
from derain.pipelines.train.run_folder import IDENTITY, read_json, write_json
from derain.plugins.identity import identities, identity_tags
from derain.tracking import store
from derain.tracking.outbox import OUTBOX_FOLDER
from derain.tracking.runs import RunLog, end_killed
from derain.training import checkpoint


@dataclass(frozen=True)
class TrackingTarget:
    """Where a run is recorded: the MLflow store, and for a trial its parent run."""

    uri: str
    parent_run_id: str | None = None


def find_target(config: Config) -> TrackingTarget:
    """Where a run is recorded.

    Raises StorageError if the store is unavailable, unless the run already has its MLflow run: then
    it continues, and its records are sent later.
    """
    known = (config.folder / IDENTITY).is_file()
    return TrackingTarget(store.tracking_uri() if known else store.prepare_store())


def end_early_run(config: Config) -> None:
    """End the MLflow run of a start that came to no checkpoint, before another one begins."""
    note = config.folder / IDENTITY
    if note.is_file():
        end_killed(read_json(note)["run_id"])


@contextlib.contextmanager
def recorded(config: Config, target: TrackingTarget) -> Iterator[RunLog]:
    """The MLflow run of this run: a new one, or for a resumed run the one that it has."""
    note = config.folder / IDENTITY
    run_id = read_json(note)["run_id"] if note.is_file() else None
    with RunLog(
        config.name,
        uri=target.uri,
        parent_run_id=target.parent_run_id,
        run_id=run_id,
        outbox=config.folder / OUTBOX_FOLDER,
    ) as record:
        if run_id is None:
            write_json(note, {"run_id": record.run_id})
            record_inputs(config, record)
        yield record


def record_inputs(config: Config, record: RunLog) -> None:
    """Record the inputs of a run or a sweep: its resolved config, and its datasets by digest."""
    record.params(config.model_dump(mode="json", exclude={"sweep"}))
    record.text(checkpoint.CONFIG, config.to_yaml())
    record.tag("derain.protocol", identity(config.eval.protocol))
    for name, text in identity_tags(identities(config.plugins)).items():
        record.tag(f"derain.{name}", text)
    if config.data.choose_on_test:
        record.tag("derain.chosen_on_test", "true")
    for role in ROLES:
        datasets = open_role(config.data, role)
        for name, dataset in zip(names_of(datasets), datasets, strict=True):
            record.dataset(
                dataset.sha256(), name, str(dataset.folder), context=role, pairs=len(dataset)
            )
