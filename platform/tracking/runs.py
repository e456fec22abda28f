"""MLflow runs: what a run records, kept on disk until the store has it."""

import functools
import hashlib
import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from derain.config.flat import flattened
from derain.errors import DerainError, StoppedError, StorageError, UsageError
from derain.tracking.outbox import Record, Spool, left_over
from derain.tracking.store import (
    EXPERIMENT,
    alone,
    answering,
    client_of,
    experiment_id_of,
    mlflow,
    pages,
    tracking_uri,
    without_password,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

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


class RunLog:
    """One MLflow run as a context manager; with `parent_run_id` a child of that run.

    The run ends as FINISHED, or SCHEDULED after `pause`, as KILLED where the process was told to
    end (Ctrl-C, and SIGTERM, which Ray raises as SystemExit), and as FAILED on any other exception.
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
            client = client_of(self.uri)
            experiment_id = experiment_id_of(client, self.uri, self._experiment)
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
        interrupted = kind is not None and (
            issubclass(kind, StoppedError) or not issubclass(kind, Exception)
        )
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
            with answering(self.uri):
                client_of(self.uri).get_run(run_id)
        except StorageError as error:
            log.warning("The run goes on, what it records is sent later. %s", error)
        except mlflow().exceptions.MlflowException as error:
            raise UsageError(
                f"The MLflow run {run_id} is not in the store {without_password(self.uri)}: "
                f"{error}. Point MLFLOW_TRACKING_URI at the store that it was begun in."
            ) from error

    def pause(self) -> None:
        """Let the run end as SCHEDULED: it is to be continued."""
        self._ends_as = "SCHEDULED"

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become dotted names, sequences JSON.

        A value over MLflow's 6,000 characters is cut, and ends with the sha256 of the whole.
        """
        self._record(params=[[key, _param_value(v)] for key, v in flattened(values).items()])

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

    def image(self, name: str, image: np.ndarray) -> None:
        """Keep an image (HWC, RGB, uint8) losslessly as the artifact `name`, ending in .png."""
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, format="PNG")
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
                self._client = client_of(self._uri)
            with alone(self._uri):  # sqlite lets one write at a time
                self._write(records[:count])
        except mlflow().exceptions.MlflowException as error:
            if error.error_code not in FOR_GOOD:
                raise
            log.error("MLflow refuses a record of run %s for good: %s", self._run_id, error)
        return count

    def _write(self, records: Sequence[Record]) -> None:
        entities, first = mlflow().entities, records[0]
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
            f"{without_password(uri)} does not take them. Try again when it is there."
        )
    return left


def end_children(
    parent_run_id: str, uri: str | None = None, *, found: str = "RUNNING", ended: str = "KILLED"
) -> int:
    """End as KILLED the children that still count as running, and return how many there were.

    For the driver, once none of them runs any more: a killed process cannot end its own run.
    `found` and `ended` name other statuses, such as those of runs that were paused and stay so.
    """
    client = client_of(uri or tracking_uri())
    experiment_id = client.get_run(parent_run_id).info.experiment_id
    search = functools.partial(
        client.search_runs,
        [experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent_run_id}' and attributes.status = '{found}'",
    )
    open_runs = list(pages(search))
    for run in open_runs:
        client.set_terminated(run.info.run_id, status=ended)
    return len(open_runs)


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
