"""The door to MLflow: runs, their lineage, and the model registry; MLflow is imported nowhere else.

Every function and `RunLog` take the store's URI as `uri`, and None means `tracking_uri()`, so that
a worker process with another working directory can be handed the driver's store. MLflow's own
global state (active run, tracking URI) is neither set nor read.

MLflow takes three seconds to import and is imported at its first use, not with this module.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import io
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlparse

import numpy as np
from PIL import Image

from derain.errors import DerainError, StoppedError, UsageError
from derain.spool import Record, Spool, left_over

log = logging.getLogger(__name__)

T = TypeVar("T")

EXPERIMENT = "derain"
DATABASE_FILE = "mlflow.db"
ARTIFACTS_FOLDER = "mlruns"
SQLITE_PREFIX = "sqlite:///"

# MLflow's limits for one log_batch call, one param value and one dataset digest.
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
PARAM_VALUE_LIMIT = 6000
DIGEST_LIMIT = 36

END_WAITS_S = 90.0
"""How long a run that has ended waits for a store that is away; what is left stays on disk."""
INTERRUPTED_WAITS_S = 5.0
FOR_GOOD = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED"}
)
"""MLflow's error codes after which sending again cannot help."""

CHAMPION = "champion"
CHALLENGER = "challenger"
LOADER_MODULE = "derain.predictor"
STAGED_MODULES = ("predictor.py", "errors.py", "models")
"""All of ours that loading a model folder imports; a registered model carries a copy."""
STAGED_REQUIREMENTS = (
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "open_clip_torch",
    "jaxtyping",
)
EXAMPLE_SIDE_PX = 16
"""MLflow writes the input example as JSON numbers, twice: 16 x 16 px are 6 kB, 512 x 512 6 MB."""

REQUIRED_TAGS = ("train_manifest_sha256", "config_sha256", "protocol")


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI if set, else ./mlflow.db; a sqlite path is made absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or SQLITE_PREFIX + DATABASE_FILE
    database = _sqlite_file(uri)
    return uri if database is None else f"{SQLITE_PREFIX}{database}"


def prepare_store(uri: str | None = None, experiment: str = EXPERIMENT) -> str:
    """Create the store's tables and the experiment where they are missing; return the URI.

    The driver calls this before it starts workers: a new sqlite file takes seconds to migrate.
    Processes that call it at once wait for each other.

    Raises:
        DerainError: the store cannot be reached or is none that MLflow takes.
    """
    uri = uri or tracking_uri()
    try:
        _experiment_id(_client(uri), uri, experiment)
    except _mlflow().exceptions.MlflowException as error:
        raise DerainError(
            f"The MLflow store {_without_password(uri)} cannot be used: {error}. "
            "MLFLOW_TRACKING_URI names the store; without it, mlflow.db in the working directory."
        ) from error
    return uri


class RunLog:
    """One MLflow run as a context manager; with `parent_run_id` a child of that run.

    The run ends as FINISHED, or SCHEDULED after `pause`, as KILLED on KeyboardInterrupt, and as
    FAILED on any other exception.
    Whatever is recorded is kept on disk at once and sent by a thread of its own, so a store that is
    slow, locked or away holds nothing up and loses nothing (see `spool`). An instance belongs to
    one thread.
    """

    def __init__(
        self,
        name: str,
        *,
        uri: str | None = None,
        experiment: str = EXPERIMENT,
        parent_run_id: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        spool: Path | None = None,
    ) -> None:
        """Describe the run; it is created on entering the context.

        With `run_id` that run is continued instead, and the other descriptions do not count.
        `spool` is the folder for what is not sent yet; None takes the system's for temporary files.
        """
        self.name = name
        self.uri = uri or tracking_uri()
        self._experiment = experiment
        self._tags = dict(tags or {})
        if parent_run_id is not None:
            self._tags["mlflow.parentRunId"] = parent_run_id
        self._ends_as = "FINISHED"
        self._folder = spool or Path(tempfile.gettempdir(), "derain-tracking")
        self._run_id = run_id

    @property
    def run_id(self) -> str:
        """The id of the run, from entering the context on."""
        if self._run_id is None:
            raise RuntimeError("The run does not exist before its context is entered.")
        return self._run_id

    def __enter__(self) -> Self:
        """Create the run, or set the one that is continued to RUNNING again.

        Raises:
            UsageError: the run to continue is not in the store.
        """
        if self._run_id is None:
            client = _client(self.uri)
            experiment_id = _experiment_id(client, self.uri, self._experiment)
            run = client.create_run(experiment_id, tags=self._tags, run_name=self.name)
            self._run_id = run.info.run_id
            self._open_spool()
        else:
            self._check_known(self._run_id)
            self._open_spool()
            self._record(status="RUNNING")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run, once all is sent or `END_WAITS_S` have passed."""
        status = self._ends_as
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | StoppedError)
        if kind is not None:
            status = "KILLED" if interrupted else "FAILED"
        self._record(status=status)
        if left := self._spool.close(INTERRUPTED_WAITS_S if interrupted else END_WAITS_S):
            log.warning(
                "%d records of %s wait in %s: the MLflow store cannot be reached. Send them later "
                "with `derainctl sync %s`.", left, self.name, self._spool.path, self._folder.parent,
            )  # fmt: skip

    def _open_spool(self) -> None:
        self._spool = Spool(self._folder, self.run_id, _Sender(self.uri, self.run_id))

    def _record(self, **record: Any) -> None:
        self._spool.put(record)

    def _check_known(self, run_id: str) -> None:
        try:
            _client(self.uri).get_run(run_id)
        except _mlflow().exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                log.warning("The MLflow store cannot be reached, the run goes on: %s", error)
                return
            raise UsageError(
                f"The MLflow run {run_id} is not in the store {_without_password(self.uri)}: "
                f"{error}. Point MLFLOW_TRACKING_URI at the store that it was begun in."
            ) from error

    def pause(self) -> None:
        """Let the run end as SCHEDULED: it is to be continued."""
        self._ends_as = "SCHEDULED"

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become dotted names, sequences JSON.

        A value over MLflow's 6,000 characters is cut, and ends with the sha256 of the whole.
        """
        self._record(params=[[key, _param_value(v)] for key, v in _flattened(values)])

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log one step's metrics."""
        now_ms = int(time.time() * 1000)
        points = [[key, float(v), now_ms, step] for key, v in values.items()]
        for chunk in _chunks(points, METRICS_PER_CALL):
            self._record(metrics=chunk)

    def flush(self, timeout_s: float = END_WAITS_S) -> bool:
        """Send all now; False when the store did not take it in time: it is sent later."""
        return self._spool.flush(timeout_s)

    def text(self, name: str, content: str) -> None:
        """Keep a text as the artifact `name`, such as "config.yaml"."""
        self._artifact(name, content.encode())

    def picture(self, name: str, picture: np.ndarray) -> None:
        """Keep a picture (HWC, RGB, uint8) losslessly as the artifact `name`, ending in .png."""
        encoded = io.BytesIO()
        Image.fromarray(picture).save(encoded, format="PNG")
        self._artifact(name, encoded.getvalue())

    def folder(self, path: str | Path, name: str) -> None:
        """Keep a folder's files as artifacts under `name`."""
        for file in sorted(Path(path).rglob("*")):
            if file.is_file():
                self._artifact(f"{name}/{file.relative_to(path).as_posix()}", file.read_bytes())

    def _artifact(self, name: str, content: bytes) -> None:
        """A copy of its own waits until it is sent."""
        waiting = Path(tempfile.mkdtemp(dir=self._folder, prefix="artifact-"), Path(name).name)
        waiting.write_bytes(content)
        self._record(artifact=str(waiting), folder=_parent(name))

    def dataset(
        self, manifest_sha256: str, name: str, path: str, *, context: str, pairs: int
    ) -> None:
        """Record that the run read a prepared dataset, in the context "train" or "eval".

        MLflow keeps 36 characters of a digest; the whole one goes into the source and into the
        run's tag `<context>_manifest_sha256.<name>`.
        """
        dataset = {
            "name": name,
            "digest": manifest_sha256[:DIGEST_LIMIT],
            "source_type": urlparse(path).scheme or "local",
            "source": json.dumps({"uri": path, "manifest_sha256": manifest_sha256}),
            "profile": json.dumps({"pairs": pairs}),
        }
        tag = f"{context}_manifest_sha256.{name}"
        self._record(dataset=dataset, context=context, tag=[tag, manifest_sha256])


class _Sender:
    """Sends records of one run to MLflow; to send one twice does no harm."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id
        self._client: Any = None

    def __call__(self, records: Sequence[Record]) -> int:
        """Send the first of the records, or as many metrics as a call takes; returns how many.

        Raises what may pass: a store that is away or locked.
        """
        count = _leading_metrics(records) or 1
        try:
            if self._client is None:
                self._client = _client(self._uri)
            with _locked(_sqlite_file(self._uri)):  # sqlite lets one write at a time
                self._write(records[:count])
        except _mlflow().exceptions.MlflowException as error:
            if error.error_code not in FOR_GOOD:
                raise
            log.error("MLflow refuses a record of run %s for good: %s", self._run_id, error)
        return count

    def _write(self, records: Sequence[Record]) -> None:
        entities, first = _mlflow().entities, records[0]
        if "metrics" in first:
            points = [entities.Metric(*point) for record in records for point in record["metrics"]]
            self._client.log_batch(self._run_id, metrics=points)
        elif "params" in first:
            for chunk in _chunks(first["params"], PARAMS_PER_CALL):
                params = [entities.Param(*item) for item in chunk]
                self._client.log_batch(self._run_id, params=params)
        elif "dataset" in first:
            used_as = [entities.InputTag("mlflow.data.context", first["context"])]
            used = entities.DatasetInput(entities.Dataset(**first["dataset"]), used_as)
            self._client.log_inputs(self._run_id, [used])
            self._client.set_tag(self._run_id, *first["tag"])
        elif "artifact" in first:
            self._write_artifact(Path(first["artifact"]), first["folder"])
        else:
            self._write_status(first["status"])

    def _write_artifact(self, file: Path, folder: str | None) -> None:
        if file.is_file():  # else it was sent before
            self._client.log_artifact(self._run_id, str(file), folder)
            shutil.rmtree(file.parent)

    def _write_status(self, status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(self._run_id, status=status)
        else:
            self._client.set_terminated(self._run_id, status=status)


def _leading_metrics(records: Sequence[Record]) -> int:
    """How many of the first records are metrics that fit into one call."""
    count = points = 0
    for record in records:
        points += len(record.get("metrics", ()))
        if "metrics" not in record or points > METRICS_PER_CALL:
            break
        count += 1
    return count


def sync(folder: Path, uri: str | None = None) -> dict[str, int]:
    """Send what runs that have ended left in a folder; returns the records left by run.

    Raises:
        DerainError: the store still does not take them.
    """
    uri = uri or tracking_uri()
    names = left_over(folder)
    left = {name: Spool(folder, name, _Sender(uri, name)).close(END_WAITS_S) for name in names}
    if any(left.values()):
        raise DerainError(
            f"{sum(left.values())} records still wait in {folder}: the MLflow store "
            f"{_without_password(uri)} does not take them. Try again when it is there."
        )
    return left


def end_children(
    parent_run_id: str, uri: str | None = None, *, found: str = "RUNNING", ended: str = "KILLED"
) -> int:
    """End as KILLED the children that still count as running, and return how many there were.

    For the driver, once none of them runs any more: a killed process cannot end its own run.
    `found` and `ended` name other statuses, such as those of runs that were paused and stay so.
    """
    client = _client(uri or tracking_uri())
    experiment_id = client.get_run(parent_run_id).info.experiment_id
    search = functools.partial(
        client.search_runs,
        [experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent_run_id}' and attributes.status = '{found}'",
    )
    open_runs = list(_pages(search))
    for run in open_runs:
        client.set_terminated(run.info.run_id, status=ended)
    return len(open_runs)


@dataclass(frozen=True)
class Registered:
    """A model version that was just registered."""

    name: str
    version: int
    alias: str
    reason: str
    """Why it has this alias, as a sentence."""

    @property
    def uri(self) -> str:
        """The address of this very version."""
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
    uri: str | None = None,
) -> Registered:
    """Log a model folder as a model of its run and register it as the next version of `name`.

    `scores` has finite `psnr_y` (dB) and `ssim_y`, measured under the protocol `tags["protocol"]`
    on the pictures that `evaluation_sha256` stands for. `tags` has `REQUIRED_TAGS`; run, sweep,
    package version and git commit are added. `example` is NHWC, RGB, uint8.

    The version becomes `champion` where there is none, or where it beats the champion's psnr_y on
    the same pictures under the same protocol; else `challenger`.

    Raises:
        UsageError: a name that MLflow does not take, or a score that is not finite.
    """
    _check_registration(name, scores, tags)
    uri = uri or tracking_uri()
    client = _client(uri)
    measured = {key: repr(float(scores[key])) for key in ("psnr_y", "ssim_y")}
    lineage = {**tags, **measured, "evaluation_sha256": evaluation_sha256}
    lineage |= _provenance(client, run_id)
    logged = _log_model(client, Path(model_folder), run_id, example)
    _ignore_existing(lambda: client.create_registered_model(name))
    champion = _champion(client, name)
    # Not models:/<id> as the source: MLflow 3.17 looks that up in the store of its global state.
    created = client.create_model_version(
        name,
        source=logged.artifact_location,
        run_id=run_id,
        tags=lineage,
        model_id=logged.model_id,
    )
    alias, reason = _standing(lineage, champion)
    client.set_registered_model_alias(name, alias, created.version)
    log.info("%s version %s is the %s: %s", name, created.version, alias, reason)
    return Registered(name, int(created.version), alias, reason)


def promote(name: str, version: int, uri: str | None = None) -> None:
    """Make a version the champion, whatever its figures are.

    Raises:
        UsageError: there is no such model or version.
    """
    client = _client(uri or tracking_uri())
    try:
        chosen = client.get_model_version(name, str(version))
        client.set_registered_model_alias(name, CHAMPION, chosen.version)
        aliases = client.get_registered_model(name).aliases
    except _mlflow().exceptions.MlflowException as error:
        raise UsageError(
            f"There is no version {version} of {name!r} in the registry: {error}. "
            "`derainctl models` lists what there is."
        ) from error
    if str(aliases.get(CHALLENGER)) == str(version):
        client.delete_registered_model_alias(name, CHALLENGER)


def models(uri: str | None = None) -> list[ModelVersion]:
    """List every registered model version, by name and version."""
    client = _client(uri or tracking_uri())
    listed = []
    for model in _pages(client.search_registered_models):
        # Aliases come with the model, not with the versions that a search returns.
        aliases = {alias: int(version) for alias, version in model.aliases.items()}
        search = functools.partial(client.search_model_versions, f"name = '{model.name}'")
        listed += [_listed(found, aliases) for found in _pages(search)]
    return sorted(listed, key=lambda found: (found.name, found.version))


def model_folder(model: str, uri: str | None = None) -> Path:
    """Return the model folder (see `derain.predictor`) of a registered or logged model.

    `model` is models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model. Where the artifacts are
    files of this machine the folder is the store's own, for reading only; else a download into the
    system's folder for temporary files.

    Raises:
        UsageError: there is no such model, or it is none that this platform registered.
    """
    uri = uri or tracking_uri()
    try:
        downloaded = _mlflow().artifacts.download_artifacts(
            artifact_uri=_location(_client(uri), model), tracking_uri=uri, registry_uri=uri
        )
    except (_mlflow().exceptions.MlflowException, OSError) as error:
        raise UsageError(
            f"{model} is not in the store {_without_password(uri)}: {error}. "
            "`derainctl models` lists what there is."
        ) from error
    flavor = _mlflow().models.Model.load(downloaded).flavors.get("python_function", {})
    if flavor.get("loader_module") != LOADER_MODULE:
        raise UsageError(f"{model} is no model of derain-platform, it is loaded by {flavor}.")
    return Path(downloaded, flavor["data"])


def serve_ui(port: int, uri: str | None = None) -> None:
    """Run MLflow's own web page on a store that is a database, until it is interrupted.

    Raises:
        UsageError: the store is a server, which has its page already.
        DerainError: MLflow's server ended with an error.
    """
    uri = uri or tracking_uri()
    if urlparse(uri).scheme in ("http", "https"):
        raise UsageError(f"The store is a server that has its own page: {_without_password(uri)}")
    prepare_store(uri)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    # stderr for both streams: what MLflow says there is progress, not a result.
    ended = subprocess.run([*command, "--port", str(port)], stdout=sys.stderr, check=False)
    if ended.returncode != 0:
        raise DerainError(
            f"`mlflow ui` ended with {ended.returncode}; is port {port} taken? Try --port."
        )


@functools.cache
def _mlflow() -> Any:
    """Import MLflow with its chatter and its telemetry off; stdout belongs to our results."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # The spool sends again by itself; MLflow's seven tries would hold one call for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    import mlflow
    import mlflow.artifacts
    import mlflow.models
    import mlflow.pyfunc

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return mlflow


def _client(uri: str) -> Any:
    """Open the store, which creates a sqlite store's tables if there are none.

    MLflow 3.17 does that without a lock; two processes that meet there both fail in a migration.
    """
    with _locked(_sqlite_file(uri)):
        return _mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextlib.contextmanager
def _locked(database: Path | None) -> Iterator[None]:
    """Hold an exclusive lock beside a database file; the system frees it if the process dies."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sqlite_file(uri: str) -> Path | None:
    """The absolute path of a sqlite store's file; None for any other store."""
    if not uri.startswith(SQLITE_PREFIX) or uri == SQLITE_PREFIX:
        return None
    return Path(uri.removeprefix(SQLITE_PREFIX)).absolute()


def _without_password(uri: str) -> str:
    parts = urlparse(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@")


def _experiment_id(client: Any, uri: str, name: str) -> str:
    """Find or create an experiment whose artifacts lie beside a sqlite store, wherever we run.

    MLflow's own default is ./mlruns of whichever process came first. A store that is a server
    decides by itself.
    """
    database = _sqlite_file(uri)
    location = None
    if database is not None:
        location = f"{(database.parent / ARTIFACTS_FOLDER).as_uri()}/{quote(name, safe='')}"
    found = client.get_experiment_by_name(name)
    if found is None:
        _ignore_existing(lambda: client.create_experiment(name, artifact_location=location))
        found = client.get_experiment_by_name(name)
    return found.experiment_id


def _ignore_existing(create: Any) -> None:
    """Create something that another process may have created in the same moment."""
    try:
        create()
    except _mlflow().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _param_value(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, list | tuple | dict) else str(value)
    if len(text) <= PARAM_VALUE_LIMIT:
        return text
    end = f"... sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return text[: PARAM_VALUE_LIMIT - len(end)] + end


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _parent(name: str) -> str | None:
    """The artifact folder that MLflow should put `name` into; None for the top."""
    parent = Path(name).parent.as_posix()
    return None if parent == "." else parent


def _check_registration(name: str, scores: Mapping[str, float], tags: Mapping[str, str]) -> None:
    if not name or any(character in name for character in "/:'"):
        raise UsageError(f"A model's name has no slash, colon or quote and is not empty: {name!r}.")
    if missing := [key for key in REQUIRED_TAGS if key not in tags]:
        raise ValueError(f"a model version needs the tags {', '.join(missing)}")
    for key in ("psnr_y", "ssim_y"):
        if not math.isfinite(scores[key]):
            raise UsageError(
                f"{key} of the model for {name} is {scores[key]}; a version without a finite score "
                "cannot be compared. Look at the run's loss: it may have diverged."
            )


def _provenance(client: Any, run_id: str) -> dict[str, str]:
    """Where a version comes from: its run, the sweep above that, and our own code."""
    found = {
        "run_id": run_id,
        "sweep_run_id": client.get_run(run_id).data.tags.get("mlflow.parentRunId"),
        "package_version": importlib.metadata.version("derain-platform"),
        "git_commit": _git_commit(Path(__file__)),
    }
    return {key: value for key, value in found.items() if value is not None}


def _git_commit(file: Path) -> str | None:
    """The commit of the checkout that tracks a file, with "-dirty" where any file differs.

    None where there is none: a package that is installed inside somebody's repository, in a .venv
    there, is not tracked by it.
    """
    here = file.resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _log_model(client: Any, folder: Path, run_id: str, example: np.ndarray) -> Any:
    """Write the model folder as an MLflow model of the run; return MLflow's LoggedModel."""
    entities = _mlflow().entities
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            packed = _pack(Path(scratch), folder, example, logged, run_id)
            client.log_model_artifacts(logged.model_id, str(packed))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [entities.LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _pack(scratch: Path, folder: Path, example: np.ndarray, logged: Any, run_id: str) -> Path:
    """Build the MLflow model on disk: our loader module and the model folder, nothing pickled."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    pictures = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    description = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=run_id,
    )
    packed = scratch / "packed"
    _mlflow().pyfunc.save_model(
        str(packed),
        loader_module=LOADER_MODULE,
        data_path=str(folder),
        code_paths=[str(_staged_code(scratch))],
        mlflow_model=description,
        signature=ModelSignature(inputs=pictures, outputs=pictures),
        input_example=example[:1, :EXAMPLE_SIDE_PX, :EXAMPLE_SIDE_PX],
        pip_requirements=_requirements(),
    )
    return packed


def _staged_code(scratch: Path) -> Path:
    """Copy what loading needs into a folder `derain`, without __init__.py as ours has none."""
    staged = scratch / "derain"
    staged.mkdir()
    for module in STAGED_MODULES:
        source = Path(__file__).parent / module
        if source.is_dir():
            shutil.copytree(source, staged / module, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, staged / module)
    return staged


def _requirements() -> list[str]:
    """The installed versions, without a local part such as +cu130 that no index carries."""
    versions = {name: importlib.metadata.version(name) for name in STAGED_REQUIREMENTS}
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def _location(client: Any, model: str) -> str:
    """Where a model's artifacts lie, by the client's store: MLflow would ask its global one."""
    kind, _, rest = model.partition(":/")
    if kind == "runs":
        return _logged_location(client, *rest.split("/", 1))
    name, at, alias = rest.rpartition("@")
    if at:
        version = client.get_model_version_by_alias(name, alias).version
    else:
        name, _, version = rest.rpartition("/")
    return client.get_model_version_download_uri(name, str(version))


def _logged_location(client: Any, run_id: str, name: str = "model") -> str:
    """Where the latest model of that name lies that a run logged, else its artifact `name`."""
    run = client.get_run(run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    logged = [client.get_logged_model(output.model_id) for output in outputs]
    named = [item for item in logged if item.name == name]
    if not named:
        return f"{run.info.artifact_uri}/{name}"
    return max(named, key=lambda item: item.creation_timestamp).artifact_location


def _champion(client: Any, name: str) -> Any | None:
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else client.get_model_version(name, str(version))


def _standing(lineage: Mapping[str, str], champion: Any | None) -> tuple[str, str]:
    """The alias of a new version beside the present champion, and the reason."""
    if champion is None:
        return CHAMPION, "there was no champion."
    who = f"champion version {champion.version}"
    for key in ("evaluation_sha256", "protocol"):
        if champion.tags.get(key) != lineage[key]:
            return CHALLENGER, (
                f"{who} was measured with another {key} ({champion.tags.get(key)}, this one with "
                f"{lineage[key]}), so the figures cannot be compared. Evaluate both on one set, "
                "then `derainctl promote`."
            )
    ours, theirs = float(lineage["psnr_y"]), float(champion.tags["psnr_y"])
    if ours > theirs:
        return CHAMPION, f"{ours:.4f} dB beats {who} with {theirs:.4f} dB."
    return CHALLENGER, f"{ours:.4f} dB does not beat {who} with {theirs:.4f} dB."


def _listed(found: Any, aliases: Mapping[str, int]) -> ModelVersion:
    version = int(found.version)
    return ModelVersion(
        name=found.name,
        version=version,
        aliases=tuple(sorted(alias for alias, at in aliases.items() if at == version)),
        run_id=found.run_id,
        created_ms=found.creation_timestamp,
        tags=dict(found.tags),
    )


def _pages(search: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return
