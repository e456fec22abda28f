"""Checkpoints on their way to another place (a folder, NFS, S3, GCS), while training goes on.

One thread, one place in the queue: a newer checkpoint takes the place of one that still waits. A
checkpoint is there when its state.json is, which goes last. What fails is logged and tried again,
and never stops the run.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from derain.errors import StorageError, WeightsError
from derain.storage.atomic import new_folder
from derain.storage.files import located
from derain.training import checkpoint
from derain.training.checkpoint import CONFIG, STATE, Checkpoint

log = logging.getLogger(__name__)

RETRY_S = (1.0, 30.0)
END_WAITS_S = 300.0
"""How long a run that has ended waits for the last upload."""


class Remote:
    """The copy of a run's folder at another place; its layout is that of the run's folder."""

    def __init__(self, place: str, name: str, beside: Sequence[str] = ()) -> None:
        """`place` is `train.upload_to`, `name` the run's, `beside` what else of its folder goes
        along: files that only grow, of which a copy may tell more than the checkpoint."""
        self.folder = located(place) / name
        self._beside = beside

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints that are there."""
        named = checkpoint.steps(self.folder)
        return [s for s in named if (checkpoint.folder_of(self.folder, s) / STATE).is_file()]

    def put(self, folder: Path) -> None:
        """Copy a checkpoint, and what lies beside it in the run's folder."""
        run, target = folder.parents[1], self.folder / "checkpoints" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for name in self._beside:
            if (run / name).is_file():
                (self.folder / name).write_bytes((run / name).read_bytes())
        (self.folder / CONFIG).write_bytes((folder / CONFIG).read_bytes())
        names = sorted(path.name for path in folder.iterdir() if path.name != STATE)
        for name in [*names, STATE]:
            (target / name).write_bytes((folder / name).read_bytes())

    def prune(self, newest: int, keep: int, spared: set[int]) -> None:
        """Remove what is outdated, as `checkpoint.prune` does."""
        for step in checkpoint.outdated(self.steps(), newest, keep, spared):
            doomed = checkpoint.folder_of(self.folder, step)
            (doomed / STATE).unlink()  # first: what has none is not whole
            for path in list(doomed.iterdir()):
                path.unlink()
            doomed.rmdir()

    def fetch(self, run: Path) -> Checkpoint | None:
        """Bring the newest whole checkpoint, and the best, into a run's folder that holds none.

        None where there is no whole one.
        """
        for step in reversed(self.steps()):
            saved = self._brought(run, step)
            if saved is None:
                continue
            best = saved.state.best.get("step", step)
            if best != step:
                self._brought(run, int(best))
            (run / CONFIG).write_bytes((saved.folder / CONFIG).read_bytes())
            for name in self._beside:
                if (self.folder / name).is_file():
                    (run / name).write_bytes((self.folder / name).read_bytes())
            log.info("fetched the checkpoint of step %d from %s", step, self.folder)
            return saved
        return None

    def _brought(self, run: Path, step: int) -> Checkpoint | None:
        final = checkpoint.folder_of(run, step)
        try:
            with new_folder(final) as folder:
                for path in checkpoint.folder_of(self.folder, step).iterdir():
                    (folder / path.name).write_bytes(path.read_bytes())
                saved = checkpoint.load(folder)
        except WeightsError as error:
            log.warning("checkpoint at %s passed over: %s", self.folder, error)
            return None
        return Checkpoint(final, saved.state, saved.config)


@dataclass(frozen=True)
class _Order:
    folder: Path
    spared: set[int]
    keep: int

    @property
    def steps(self) -> set[int]:
        return self.spared | {_step(self.folder)}


class Uploader:
    """Copies checkpoints to a Remote in a thread; belongs to the process that writes them."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._changed = threading.Condition()
        self._next: _Order | None = None
        self._busy: _Order | None = None
        self._closing = False
        threading.Thread(target=self._work, daemon=True, name="uploads").start()

    def put(self, folder: Path, spared: set[int], keep: int) -> None:
        """Upload a checkpoint; there, too, the newest `keep` and the `spared` steps stay."""
        with self._changed:
            self._next = _Order(folder, spared, keep)
            self._changed.notify_all()

    def steps(self) -> set[int]:
        """Steps that wait or are under way: their folders must stay until then."""
        with self._changed:
            orders = filter(None, (self._next, self._busy))
            return {step for order in orders for step in order.steps}

    def close(self, timeout_s: float = END_WAITS_S) -> bool:
        """Wait for what is under way; False when it was not there in time."""
        with self._changed:
            done = self._changed.wait_for(lambda: not (self._next or self._busy), timeout_s)
            self._closing = True
            self._changed.notify_all()
        if not done:
            log.error("The last checkpoint did not reach %s in time.", self._remote.folder)
        return done

    def _work(self) -> None:
        for order in self._orders():
            pause = RETRY_S[0]
            while True:
                try:
                    self._send(order)
                    break
                except (OSError, StorageError) as error:
                    log.warning("upload of %s failed, trying again: %s", order.folder.name, error)
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing or self._next, pause):
                        break  # the end, or a newer one
                pause = min(2 * pause, RETRY_S[1])

    def _send(self, order: _Order) -> None:
        """The newest, and those to be spared whose turn never came."""
        for step in order.spared.difference(self._remote.steps(), {_step(order.folder)}):
            folder = checkpoint.folder_of(order.folder.parents[1], step)
            if folder.is_dir():
                self._remote.put(folder)
        self._remote.put(order.folder)
        self._remote.prune(_step(order.folder), order.keep, order.spared)

    def _orders(self) -> "Iterator[_Order]":
        while True:
            with self._changed:
                self._busy = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._next or self._closing)
                if self._next is None or self._closing:
                    return
                order, self._next = self._next, None
                self._busy = order
            yield order


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
