"""MLflow runs: everything that a run records, kept on disk until the store has it."""

import functools
import io
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from derain.config.flat import flattened
from derain.errors import DerainError, StoppedError, StorageError
from derain.tracking.address import hidden
from derain.tracking.moved import check_in_place
from derain.tracking.names import accepted, param_value, shortened
from derain.tracking.outbox import Outbox, unsent_names
from derain.tracking.sender import METRICS_PER_CALL, Sender, chunks
from derain.tracking.store import (
    EXPERIMENT,
    client_of,
    experiment_id_of,
    find_run,
    pages,
    storage_errors,
    tracking_uri,
    without_password,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

# MLflow's limits, in characters, of a dataset's digest and name.
DIGEST_LIMIT = 36
DATASET_NAME_LIMIT = 500

END_WAITS_S = 90.0
"""How long a finished run waits for a store that takes nothing; unsent records stay on disk."""
END_LIMIT_S = 900.0
"""How long for one that takes them slowly."""
INTERRUPTED_WAITS_S = 5.0
ARTIFACTS = "-artifacts"
"""Ending of the name of the outbox for a run's artifacts."""
ARTIFACT_TRIES = 3
"""How often a finished run tries to store its artifacts: a place that refuses them (credentials are
missing, for example) will refuse them again. The records have waited for the store before that."""


class RunLog:
    """One MLflow run as a context manager; with `parent_run_id`, a child of that run.

    The run ends as FINISHED, as SCHEDULED after `pause`, as KILLED if the process was asked to stop
    (Ctrl-C, or SIGTERM, which Ray raises as SystemExit), and as FAILED on any other exception.
    Everything recorded is written to disk at once and sent by a separate thread, so that a slow,
    locked or unreachable store neither delays the run nor loses records (see `outbox`). Use an
    instance from one thread only.
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
        outbox: Path | None = None,
    ) -> None:
        """Describe the run; entering the context creates it.

        With `run_id` that run is continued instead, and name, experiment, parent and tags are
        ignored. `outbox` is the folder for unsent records; default: one in the system's folder for
        temporary files.
        """
        self.name = shortened(name)
        self.uri = uri or tracking_uri()
        self._experiment = experiment
        self._tags = dict(tags or {})
        if parent_run_id is not None:
            self._tags["mlflow.parentRunId"] = parent_run_id
        self._ends_as = "FINISHED"
        self._step = 0
        self._folder = outbox or Path(tempfile.gettempdir(), "derain-tracking")
        self._run_id = run_id
        self._outbox: Outbox | None = None
        self._artifacts: Outbox | None = None

    @property
    def run_id(self) -> str:
        """The id of the run, once the context is entered."""
        return _entered(self._run_id)

    def __enter__(self) -> Self:
        """Create the run, or set the run to continue to RUNNING again.

        Raises:
            UsageError: the run to continue is not in the store.
            StorageError: the store was moved, see `derain.tracking.moved`.
        """
        if self._run_id is None:
            client = client_of(self.uri)
            with storage_errors(self.uri):
                experiment_id = experiment_id_of(client, self.uri, self._experiment)
                run = client.create_run(experiment_id, tags=self._tags, run_name=self.name)
            self._run_id = run.info.run_id
            self._open_outbox()
        else:
            self._check_exists(self._run_id)
            self._open_outbox()
            self._record(status="RUNNING")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run, once everything is sent, or the store has kept it waiting: `END_WAITS_S`."""
        status = self._ends_as
        interrupted = kind is not None and (
            issubclass(kind, StoppedError) or not issubclass(kind, Exception)
        )
        if kind is not None:
            status = "KILLED" if interrupted else "FAILED"
        self._record(status=status)
        wait_s = INTERRUPTED_WAITS_S if interrupted else END_WAITS_S
        limit_s = None if interrupted else END_LIMIT_S
        for outbox in (_entered(self._outbox), _entered(self._artifacts)):
            if unsent := outbox.close(wait_s, limit_s):
                wait_s, limit_s = 0.0, None  # the files go to a store that did not answer either
                self._warn_of_unsent(unsent, outbox)

    def _warn_of_unsent(self, unsent: int, outbox: Outbox) -> None:
        what = "artifacts" if outbox is self._artifacts else "records"
        reason = outbox.last_error or "the MLflow store cannot be reached"
        log.warning(
            "%d %s of %s are not sent (%s); they are kept in %s. Send them later with "
            "`derainctl sync %s`.",
            unsent, what, self.name, reason, outbox.path, self._folder.parent,
        )  # fmt: skip

    def _open_outbox(self) -> None:
        """Two, so that metrics and status do not wait for a store of files that refuses them."""
        self._outbox = Outbox(self._folder, self.run_id, Sender(self.uri, self.run_id))
        self._artifacts = _artifact_outbox(self._folder, self.run_id, self.uri)

    def _record(self, **record: Any) -> None:
        _entered(self._outbox).put(record)

    def _check_exists(self, run_id: str) -> None:
        try:
            run = find_run(client_of(self.uri), self.uri, run_id)
        except StorageError as error:
            log.warning("The run continues; its records are sent later. %s", error)
            return
        check_in_place(self.uri, run.info.artifact_uri)

    def pause(self) -> None:
        """Let the run end as SCHEDULED, as it will be continued."""
        self._ends_as = "SCHEDULED"

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become dotted names, sequences JSON.

        A value longer than MLflow's 6,000 characters is cut and ends with its full SHA-256.
        """
        flat = flattened(values).items()
        self._record(params=[[accepted(key), param_value(value)] for key, value in flat])

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of one step."""
        self._step = step
        self._points(step, values)

    def system_metrics(self, values: Mapping[str, float]) -> None:
        """Log what the machine does, under the newest step; another thread may call this."""
        self._points(self._step, values)

    def _points(self, step: int, values: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        points = [[accepted(key), float(v), now_ms, step] for key, v in values.items()]
        for chunk in chunks(points, METRICS_PER_CALL):
            self._record(metrics=chunk)

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        self._record(tag=[accepted(name), value])

    def flush(self, timeout_s: float = END_WAITS_S) -> bool:
        """Send everything now; False if that takes too long, and the rest is sent later."""
        records = _entered(self._outbox).flush(timeout_s, END_LIMIT_S)
        return _entered(self._artifacts).flush(timeout_s, END_LIMIT_S) and records

    def text(self, name: str, content: str) -> None:
        """Log a text as the artifact `name`, such as "config.yaml"."""
        self._artifact(name, content.encode())

    def image(self, name: str, image: np.ndarray) -> None:
        """Log an image (HWC, RGB, uint8) losslessly as the artifact `name`, which ends in .png."""
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, format="PNG")
        self._artifact(name, encoded.getvalue())

    def file(self, path: str | Path) -> None:
        """Log a file as an artifact of the same name."""
        self._artifact(Path(path).name, Path(path).read_bytes())

    def folder(self, path: str | Path, name: str) -> None:
        """Log the files of a folder as artifacts under `name`."""
        for file in sorted(Path(path).rglob("*")):
            if file.is_file():
                self._artifact(f"{name}/{file.relative_to(path).as_posix()}", file.read_bytes())

    def _artifact(self, name: str, content: bytes) -> None:
        """Keep a copy, in a folder of its own, until it is sent."""
        copy = Path(tempfile.mkdtemp(dir=self._folder, prefix="artifact-"), Path(name).name)
        copy.write_bytes(content)
        _entered(self._artifacts).put({"artifact": str(copy), "folder": _parent(name)})

    def dataset(
        self, manifest_sha256: str, name: str, path: str, *, context: str, pairs: int
    ) -> None:
        """Record that the run read a prepared dataset, in the context "train", "validation" or
        "test".

        MLflow keeps 36 characters of a digest; the full one is in the source and in the run's tag
        `<context>_manifest_sha256.<name>`.
        """
        dataset = {
            "name": name[-DATASET_NAME_LIMIT:],
            "digest": manifest_sha256[:DIGEST_LIMIT],
            "source_type": urlparse(path).scheme or "local",
            "source": json.dumps({"uri": path, "manifest_sha256": manifest_sha256}),
            "profile": json.dumps({"pairs": pairs}),
        }
        tag = accepted(f"{context}_manifest_sha256.{name}")
        self._record(dataset=dataset, context=context, tag=[tag, manifest_sha256])


def sync(folder: Path, uri: str | None = None) -> dict[str, int]:
    """Send the records that ended runs left in a folder; returns how many remain for each run.

    Raises:
        DerainError: the store still does not accept them.
    """
    uri = uri or tracking_uri()
    unsent: dict[str, int] = {}
    reason: Exception | None = None
    for name in unsent_names(folder):
        run_id = name.removesuffix(ARTIFACTS)
        if name == run_id:
            outbox = Outbox(folder, run_id, Sender(uri, run_id))
        else:
            outbox = _artifact_outbox(folder, run_id, uri)
        unsent[run_id] = unsent.get(run_id, 0) + outbox.close(END_WAITS_S, END_LIMIT_S)
        reason = outbox.last_error or reason
    if any(unsent.values()):
        raise DerainError(
            f"{sum(unsent.values())} records are still in {folder}, as the MLflow store "
            f"{without_password(uri)} does not accept them"
            f"{f' ({reason})' if reason else ''}. Try again when it does."
        )
    return unsent


def _artifact_outbox(folder: Path, run_id: str, uri: str) -> Outbox:
    sender = Sender(uri, run_id)
    return Outbox(folder, f"{run_id}{ARTIFACTS}", sender, give_up_after=ARTIFACT_TRIES)


def end_killed(run_id: str, uri: str | None = None, *, children: bool = False) -> None:
    """End a run whose process was killed before it could, and its children if asked to.

    Runs that have ended stay as they are. A store that does not answer, or does not know the run,
    is a warning.
    """
    uri = uri or tracking_uri()
    try:
        client = client_of(uri)
        if find_run(client, uri, run_id).info.status == "RUNNING":
            client.set_terminated(run_id, status="KILLED")
        if children:
            end_children(run_id, uri)
    except Exception as error:  # MLflow and database drivers raise types of their own
        reason = hidden(error, uri)
        log.warning("The earlier MLflow run %s keeps its status: %s", run_id, reason)


def end_children(
    parent_run_id: str, uri: str | None = None, *, before: str = "RUNNING", after: str = "KILLED"
) -> int:
    """End the children of a run that have the status `before` with the status `after`.

    Returns how many there were. The driver calls this once no child is running any more: a killed
    process cannot end its own run. Other statuses are for runs that were paused and stay so.
    """
    client = client_of(uri or tracking_uri())
    experiment_id = client.get_run(parent_run_id).info.experiment_id
    search = functools.partial(
        client.search_runs,
        [experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent_run_id}' and attributes.status = '{before}'",
    )
    children = list(pages(search))
    for run in children:
        client.set_terminated(run.info.run_id, status=after)
    return len(children)


def _entered(value: T | None) -> T:
    """The value of an attribute that entering the context sets."""
    if value is None:
        raise RuntimeError("The run does not exist before its context is entered.")
    return value


def _parent(name: str) -> str | None:
    """The artifact folder of the artifact `name`; None for the top."""
    parent = Path(name).parent.as_posix()
    return None if parent == "." else parent
