"""The model registry: model versions, their champion, and the location of their files."""

import functools
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from derain.errors import UsageError
from derain.evaluation.metric_names import psnr_name
from derain.tracking.address import hidden
from derain.tracking.champions import CHALLENGER, CHAMPION, note
from derain.tracking.moved import check_in_place
from derain.tracking.packing import LOADER_MODULES, link_version, log_model, provenance
from derain.tracking.store import (
    find_run,
    ignore_existing,
    mlflow,
    no_store,
    pages,
    reader_of,
    sqlite_file,
    storage_errors,
    tracking_uri,
    without_password,
    write_lock,
)

log = logging.getLogger(__name__)

MODEL_NAME_LIMIT = 256
"""The length of the column in MLflow's databases."""
DIFFERENT = {"evaluation_sha256": "on other images", "protocol": "under another protocol"}
"""Tags in which two versions must be equal if their metrics are to be compared."""
REQUIRED_TAGS = ("train_manifest_sha256", "config_sha256", "protocol")


@dataclass(frozen=True)
class Registered:
    """A model version that was just registered."""

    name: str
    version: int
    alias: str
    reason: str
    """Why it has this alias, as one sentence."""

    @property
    def uri(self) -> str:
        """The address of this version."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class ModelVersion:
    """A model version as the registry lists it."""

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str | None
    created_ms: int
    tags: Mapping[str, str]


def register(
    model_folder: str | Path,
    name: str,
    *,
    run_id: str,
    scores: Mapping[str, float],
    evaluation_sha256: str,
    tags: Mapping[str, str],
    example: np.ndarray,
    card: str = "",
    uri: str | None = None,
) -> Registered:
    """Log a model folder as a model of its run and register it as the next version of `name`.

    `scores` has finite values of PSNR (dB) and SSIM (`psnr_y` and `ssim_y`, or of RGB), measured
    under the protocol `tags["protocol"]` on the images that `evaluation_sha256` identifies. `tags`
    has at least `REQUIRED_TAGS`; run, sweep, package version and git commit are added. `example`
    is a batch of images: NHWC, RGB, uint8. `card` describes the model in Markdown: it becomes the
    version's description and README.md beside its files.

    The version becomes `champion` if there is no champion, or if its PSNR is higher on the same
    images under the same protocol; otherwise it becomes `challenger`.

    Raises:
        UsageError: a name that MLflow does not accept, a score that is not finite, or a run that
            is not in the store.
        StorageError: the store does not answer.
    """
    _check_registration(name, scores, tags)
    uri = uri or tracking_uri()
    client = reader_of(uri)
    measured = {key: repr(float(value)) for key, value in scores.items()}
    lineage = {**tags, **measured, "evaluation_sha256": evaluation_sha256}
    lineage |= provenance(find_run(client, uri, run_id))
    with storage_errors(uri):
        logged = log_model(
            client, Path(model_folder), run_id, example, tags=lineage, metrics=scores, card=card
        )
        ignore_existing(lambda: client.create_registered_model(name))
    # One lock from reading the champion to setting the alias: concurrent registrations queue up.
    with storage_errors(uri), write_lock(uri):
        champion = _champion(client, name)
        # Not models:/<id> as the source: MLflow 3.17 would look that up in its global store.
        created = client.create_model_version(
            name,
            source=logged.artifact_location,
            run_id=run_id,
            tags={**lineage, "logged_model_id": logged.model_id},  # sqlite drops `model_id`
            model_id=logged.model_id,
            description=_description(card) or None,
        )
        link_version(client, logged, name, created.version)
        alias, reason = _choose_alias(lineage, champion)
        if alias == CHAMPION:
            note(client, name, int(created.version), reason)
        else:
            client.set_registered_model_alias(name, alias, created.version)
    log.info("%s version %s is now the %s: %s", name, created.version, alias, reason)
    return Registered(name, int(created.version), alias, reason)


def models(uri: str | None = None) -> list[ModelVersion]:
    """All registered model versions, sorted by name and version; none if there is no store yet.

    The log says where there are none. Raises StorageError if the store does not answer.
    """
    uri = uri or tracking_uri()
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        log.warning(no_store(uri))
        return []
    client = reader_of(uri)
    listed = []
    with storage_errors(uri):
        for model in pages(client.search_registered_models):
            # Aliases come with the model, not with the versions that a search returns.
            aliases = {alias: int(version) for alias, version in model.aliases.items()}
            search = functools.partial(client.search_model_versions, f"name = '{model.name}'")
            listed += [_model_version(found, aliases) for found in pages(search)]
    if not listed:
        log.warning(
            "no registered model in %s; MLFLOW_TRACKING_URI names another store",
            without_password(uri),
        )
    return sorted(listed, key=lambda found: (found.name, found.version))


def model_folder(model: str, uri: str | None = None) -> Path:
    """Return the model folder (see `derain.inference.predictor`) of a registered or logged model.

    `model` is models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model. If the artifacts are
    files on this machine, the folder is the store's own, to be read only; otherwise it is
    downloaded to the system's folder for temporary files.

    Raises:
        UsageError: no such model, or not a model of derain-platform.
        StorageError: the store does not answer, or was moved without its artifacts.
        PermissionError: the files of the model may not be read.
    """
    uri = uri or tracking_uri()
    location = ""
    try:
        with storage_errors(uri):
            location = _artifact_location(reader_of(uri), model)
            downloaded = mlflow().artifacts.download_artifacts(
                artifact_uri=location, tracking_uri=uri, registry_uri=uri
            )
    except PermissionError:
        raise
    except (mlflow().exceptions.MlflowException, OSError) as error:
        check_in_place(uri, location)
        raise UsageError(
            f"{model} is not in the store {without_password(uri)}: {hidden(error, uri)}. "
            "`derainctl models` lists the registered models."
        ) from error
    flavor = _flavors(Path(downloaded)).get("python_function", {})
    if flavor.get("loader_module") not in LOADER_MODULES or "data" not in flavor:
        raise UsageError(
            f"{model} is not a model of derain-platform. Its MLmodel file should name the loader "
            f"{LOADER_MODULES[0]}, found {flavor.get('loader_module')}. Register it with "
            "`derainctl register`, or load it with MLflow."
        )
    return Path(downloaded, flavor["data"])


def _flavors(folder: Path) -> dict[str, Any]:
    """What a model's MLmodel file says it can be loaded as; nothing if it has no such file.

    `Model.load` of MLflow 3.17 takes a path for a URI, and fails in a folder called `x%20y`.
    """
    described = folder / "MLmodel"
    try:
        tree = yaml.safe_load(described.read_bytes()) if described.is_file() else {}
        flavors = tree["flavors"] if tree else {}
        return {name: flavor for name, flavor in flavors.items() if isinstance(flavor, dict)}
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def pinned(model: str, uri: str | None = None) -> str:
    """models:/NAME@ALIAS as the version that it names now; any other model unchanged.

    Raises UsageError if there is none, StorageError if the store does not answer.
    """
    if not model.startswith("models:/"):
        return model
    name, alias, _ = named(model)
    if alias is None:
        return model
    uri = uri or tracking_uri()
    try:
        with storage_errors(uri):
            found = reader_of(uri).get_model_version_by_alias(name, alias)
    except mlflow().exceptions.MlflowException as error:
        raise UsageError(
            f"{model} is not in the store {without_password(uri)}: {error}."
        ) from error
    return f"models:/{name}/{found.version}"


def named(model: str) -> tuple[str, str | None, int | None]:
    """Name, alias and version of models:/NAME@ALIAS or models:/NAME/VERSION; one of the two is
    None. Raises UsageError for anything else."""
    rest = model.removeprefix("models:/")
    name, at, alias = rest.rpartition("@")
    if at and name and alias and "/" not in rest:
        return name, alias, None
    name, _, version = rest.rpartition("/")
    if name and "/" not in name and re.fullmatch("[0-9]{1,18}", version):
        return name, None, int(version)
    raise UsageError(
        f"{model}: expected models:/NAME@ALIAS, such as models:/net@{CHAMPION}, or "
        "models:/NAME/VERSION. `derainctl models` lists the registered models."
    )


def check_name(name: str) -> None:
    """Raise UsageError for a name that MLflow does not accept, or that no address can contain."""
    if not name.strip() or name in (".", "..") or any(character in name for character in "/:'@"):
        raise UsageError(
            f"Invalid model name {name!r}: it must not be empty, . or .., or have / : @ or '."
        )
    if len(name) > MODEL_NAME_LIMIT:
        raise UsageError(
            f"Invalid model name {name[:20]!r}...: it has {len(name)} characters, at most "
            f"{MODEL_NAME_LIMIT} are allowed."
        )


def _check_registration(name: str, scores: Mapping[str, float], tags: Mapping[str, str]) -> None:
    check_name(name)
    if missing := [key for key in REQUIRED_TAGS if key not in tags]:
        raise ValueError(f"a model version needs the tags {', '.join(missing)}")
    for key, value in scores.items():
        if not math.isfinite(value):
            raise UsageError(
                f"{key} of the model for {name} is {value}; a version needs a finite score, "
                "to be compared. Check the run's loss: training may have diverged."
            )


def _artifact_location(client: Any, model: str) -> str:
    """Where a model's artifacts are, by the client's store: MLflow would ask its global one."""
    kind, _, rest = model.partition(":/")
    if kind == "runs":
        return _logged_model_location(client, *rest.split("/", 1))
    name, alias, version = named(model)
    if alias is not None:
        version = client.get_model_version_by_alias(name, alias).version
    return client.get_model_version_download_uri(name, str(version))


def _logged_model_location(client: Any, run_id: str, name: str = "model") -> str:
    """Where the newest model `name` of a run is; default: the run's artifact `name`."""
    run = client.get_run(run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    logged = [client.get_logged_model(output.model_id) for output in outputs]
    named = [item for item in logged if item.name == name]
    if not named:
        return f"{run.info.artifact_uri}/{name}"
    return max(named, key=lambda item: item.creation_timestamp).artifact_location


def _description(card: str) -> str:
    """A card without its front matter, which is for other programs."""
    return card.split("---\n", 2)[-1].strip() if card.startswith("---\n") else card


def _champion(client: Any, name: str) -> Any | None:
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else client.get_model_version(name, str(version))


def _choose_alias(lineage: Mapping[str, str], champion: Any | None) -> tuple[str, str]:
    """The alias of a new version, given the present champion, and the reason."""
    if champion is None:
        return CHAMPION, "there was no champion."
    rival = f"champion version {champion.version}"
    for key in DIFFERENT:
        if champion.tags.get(key) != lineage[key]:
            return CHALLENGER, (
                f"{rival} was measured {DIFFERENT[key]}, so the metrics cannot be compared. "
                "Evaluate both on the same images under one protocol, then `derainctl promote`."
            )
    psnr = psnr_name(lineage)
    new, present = float(lineage[psnr]), float(champion.tags[psnr])
    if new > present:
        return CHAMPION, f"{new:.4f} dB beats {rival} with {present:.4f} dB."
    return CHALLENGER, f"{new:.4f} dB does not beat {rival} with {present:.4f} dB."


def _model_version(found: Any, aliases: Mapping[str, int]) -> ModelVersion:
    version = int(found.version)
    return ModelVersion(
        name=found.name,
        version=version,
        aliases=tuple(sorted(alias for alias, at in aliases.items() if at == version)),
        run_id=found.run_id,
        created_ms=found.creation_timestamp,
        tags=dict(found.tags),
    )
