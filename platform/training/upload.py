"""Uploads checkpoints to a second location (a folder, NFS, S3, GCS) while training continues.

One thread, and a queue of one: a newer checkpoint replaces one that is still waiting. A checkpoint
is complete there when it has its state.json, which is uploaded last. A failed upload is logged and
retried; it never stops the run.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from derain.errors import StorageError, WeightsError
from derain.storage.atomic import new_folder
from derain.storage.files import locate
from derain.training import checkpoint
from derain.training.checkpoint import CONFIG, STATE, Checkpoint

log = logging.getLogger(__name__)

RETRY_S = (1.0, 30.0)
"""First and longest pause before a retry; the pause doubles each time."""
CLOSE_TIMEOUT_S = 300.0
"""How long a run that has ended waits for the last upload."""


class Remote:
    """The remote copy of a run's folder, with the same layout."""

    def __init__(self, location: str, name: str, extra_files: Sequence[str] = ()) -> None:
        """`location` is `train.upload_to`, `name` the run's name.

        `extra_files` are patterns of files of the run's folder that are copied with each
        checkpoint. They only grow, so that a copy may be ahead of the checkpoint.
        """
        self.folder = locate(location) / name
        self._extra_files = extra_files

    def steps(self) -> list[int]:
        """Steps of the complete remote checkpoints."""
        steps = checkpoint.steps(self.folder)
        return [s for s in steps if (checkpoint.folder_of(self.folder, s) / STATE).is_file()]

    def put(self, folder: Path) -> None:
        """Copy a checkpoint and the extra files of its run's folder."""
        run, target = folder.parents[1], self.folder / "checkpoints" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        self._copy_extra_files(run, self.folder)
        _copy(folder / CONFIG, self.folder / CONFIG)
        names = sorted(path.name for path in folder.iterdir() if path.name != STATE)
        for name in [*names, STATE]:
            _copy(folder / name, target / name)

    def prune(self, newest: int, keep: int, pinned: set[int]) -> None:
        """Remove outdated checkpoints, as `checkpoint.prune` does."""
        for step in checkpoint.outdated(self.steps(), newest, keep, pinned):
            doomed = checkpoint.folder_of(self.folder, step)
            (doomed / STATE).unlink()  # first: a checkpoint without it is incomplete
            for path in list(doomed.iterdir()):
                path.unlink()
            doomed.rmdir()

    def fetch(self, run: Path) -> Checkpoint | None:
        """Download the newest complete checkpoint, and the best, into a run's folder without any.

        Returns the newest; None if no remote checkpoint is complete.
        """
        for step in reversed(self.steps()):
            saved = self._fetch_step(run, step)
            if saved is None:
                continue
            best = saved.state.best.get("step", step)
            if best != step:
                self._fetch_step(run, int(best))
            _copy(saved.folder / CONFIG, run / CONFIG)
            self._copy_extra_files(self.folder, run)
            log.info("fetched the checkpoint of step %d from %s", step, self.folder)
            return saved
        return None

    def _fetch_step(self, run: Path, step: int) -> Checkpoint | None:
        final = checkpoint.folder_of(run, step)
        try:
            with new_folder(final) as folder:
                for path in checkpoint.folder_of(self.folder, step).iterdir():
                    _copy(path, folder / path.name)
                saved = checkpoint.load(folder)
        except WeightsError as error:
            log.warning("skipped a damaged checkpoint at %s: %s", self.folder, error)
            return None
        return Checkpoint(final, saved.state, saved.config)

    def _copy_extra_files(self, source: Path, target: Path) -> None:
        for path in list(source.iterdir()) if source.is_dir() else []:
            if any(fnmatchcase(path.name, pattern) for pattern in self._extra_files):
                _copy(path, target / path.name)


@dataclass(frozen=True)
class _Upload:
    """A checkpoint to upload, and the checkpoints to keep there."""

    folder: Path
    pinned: set[int]
    keep: int

    @property
    def steps(self) -> set[int]:
        return self.pinned | {_step(self.folder)}


class Uploader:
    """Copies checkpoints to a Remote in a thread of the process that writes them."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._changed = threading.Condition()
        self._next: _Upload | None = None
        self._current: _Upload | None = None
        self._closing = False
        threading.Thread(target=self._work, daemon=True, name="uploads").start()

    def put(self, folder: Path, pinned: set[int], keep: int) -> None:
        """Upload a checkpoint; the newest `keep` and the `pinned` steps stay at the remote, too."""
        with self._changed:
            self._next = _Upload(folder, pinned, keep)
            self._changed.notify_all()

    def pending_steps(self) -> set[int]:
        """Steps that are waiting or being uploaded; until then their folders must stay."""
        with self._changed:
            uploads = filter(None, (self._next, self._current))
            return {step for upload in uploads for step in upload.steps}

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait for pending uploads; False if they did not finish in time."""
        with self._changed:
            done = self._changed.wait_for(lambda: not (self._next or self._current), timeout_s)
            self._closing = True
            self._changed.notify_all()
        if not done:
            log.error(
                "The last checkpoint was not uploaded to %s within %g s. The run's folder still "
                "has it; copy it by hand.", self._remote.folder, timeout_s,
            )  # fmt: skip
        return done

    def _work(self) -> None:
        for upload in self._uploads():
            pause = RETRY_S[0]
            while True:
                try:
                    self._send(upload)
                    break
                except (OSError, StorageError) as error:
                    log.warning("upload of %s failed, will retry: %s", upload.folder.name, error)
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing or self._next, pause):
                        break  # closing, or a newer checkpoint is waiting
                pause = min(2 * pause, RETRY_S[1])

    def _send(self, upload: _Upload) -> None:
        """Upload the newest checkpoint, and pinned ones that were replaced in the queue before."""
        for step in upload.pinned.difference(self._remote.steps(), {_step(upload.folder)}):
            folder = checkpoint.folder_of(upload.folder.parents[1], step)
            if folder.is_dir():
                self._remote.put(folder)
        self._remote.put(upload.folder)
        self._remote.prune(_step(upload.folder), upload.keep, upload.pinned)

    def _uploads(self) -> Iterator[_Upload]:
        """The uploads as they are queued, until `close`."""
        while True:
            with self._changed:
                self._current = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._next or self._closing)
                if self._next is None or self._closing:
                    return
                upload, self._next = self._next, None
                self._current = upload
            yield upload


def _copy(source: Path, target: Path) -> None:
    """Copy a file; each of the two may be remote."""
    target.write_bytes(source.read_bytes())


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
