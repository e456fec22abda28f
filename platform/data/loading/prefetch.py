"""Loader processes that prepare batches ahead of the training step, with unchanged bytes.

The training process requests crops, so the order of an epoch is in this one process only; loader
processes write those of the next positions into shared memory. The memory is an unnamed file
(memfd) and requests go through sockets, so a kill leaves nothing behind: a child ends when its
parent is gone, and a parent raises when a child is gone. A batch of 16 pairs of 128 px takes 0.07
ms to copy out of shared memory and would take 1.9 ms through a pipe.
"""

import contextlib
import math
import mmap
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe

import numpy as np

from derain.data.loading.crops import Crops, Cutter
from derain.data.loading.loader import Batch, Loader, Position
from derain.errors import DerainError, UsageError

BatchAt = Callable[[Position], Batch[np.ndarray]]
"""The batch at a position: `Loader.batch`, or the same batch from a loader process."""

AHEAD = 2
"""Batches that each loader process has ready or is preparing, besides the current one."""

_CHILD = "from derain.data.loading.prefetch import _serve; _serve({socket}, {memory})"


@contextlib.contextmanager
def prefetch(loader: Loader, processes: int) -> Iterator[BatchAt]:
    """The loader's batches, prepared ahead by this many processes; 0 makes them in this process.

    Positions requested in order are ready; any other position gives its batch too, but later.
    Raises UsageError on systems other than Linux, which lack memfd.
    """
    if not processes:
        yield loader.batch
        return
    if not hasattr(os, "memfd_create"):
        raise UsageError(
            f"data.loader_processes={processes} needs Linux: set it to 0 on this machine."
        )
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(loader)) for _ in range(processes)]
        yield _Queue(loader, workers)


class _Queue:
    """Requests consecutive positions from the workers, in turns."""

    def __init__(self, loader: Loader, workers: list["_Worker"]) -> None:
        self._loader = loader
        self._slots = [(worker, slot) for slot in range(AHEAD) for worker in workers]
        self._free = deque(self._slots)
        self._pending: deque[tuple[Position, _Worker, int]] = deque()

    def __call__(self, at: Position) -> Batch[np.ndarray]:
        if self._pending and self._pending[0][0] != at:
            self._discard()
        self._request_from(at)
        _, worker, slot = self._pending.popleft()
        plan = self._loader.plan(at)
        pixels = worker.take(slot, plan.shape)
        self._free.append((worker, slot))
        self._request_from(plan.following)
        return plan.batch(pixels)

    def _request_from(self, at: Position) -> None:
        """Request a position for every free slot: those after the pending ones, or `at` first."""
        if self._pending:
            at = self._loader.plan(self._pending[-1][0]).following
        while self._free:
            worker, slot = self._free.popleft()
            plan = self._loader.plan(at)
            worker.request(slot, self._loader.crops(plan), plan.shape)
            self._pending.append((at, worker, slot))
            at = plan.following

    def _discard(self) -> None:
        """Drop all pending batches: the run has returned to a checkpoint."""
        for _, worker, _ in self._pending:
            worker.wait()
        self._pending.clear()
        self._free = deque(self._slots)


@dataclass
class _Worker:
    """The parent's side of one loader process."""

    process: subprocess.Popen[bytes]
    socket: Connection
    slots: np.ndarray
    """uint8 (AHEAD, bytes of the largest batch), shared with the process."""

    def request(self, slot: int, crops: Crops, shape: tuple[int, ...]) -> None:
        """Have crops written into a slot."""
        with self._death_explained():
            self.socket.send((slot, crops, shape))

    def wait(self) -> None:
        """Wait until the oldest requested batch is in its slot."""
        with self._death_explained():
            error = self.socket.recv()
        if error is not None:
            raise error

    def take(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """A copy of the oldest requested batch, once it is ready."""
        self.wait()
        return _view(self.slots[slot], shape).copy()

    @contextlib.contextmanager
    def _death_explained(self) -> Iterator[None]:
        """Turn a broken connection into an error that says how the process ended."""
        try:
            yield
        except (EOFError, OSError):
            code = self.process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise DerainError(
                f"Loader process {self.process.pid} {how} (its own message, if any, is above). "
                "Signal 9 often means that the machine ran out of memory: try fewer "
                "data.loader_processes. The run can be resumed from its newest checkpoint."
            ) from None


@contextlib.contextmanager
def _worker(loader: Loader) -> Iterator[_Worker]:
    """Start a loader process; it is killed at the end of the block."""
    memory = os.memfd_create("derain-batches")
    ours, theirs = Pipe()
    try:
        os.ftruncate(memory, AHEAD * loader.largest_bytes)
        slots = _map_slots(memory)
        numbers = {"socket": theirs.fileno(), "memory": memory}
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(**numbers)],
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(numbers.values()),
        )
    finally:
        theirs.close()
        os.close(memory)
    try:
        worker = _Worker(process, ours, slots)
        with worker._death_explained():
            ours.send(sys.path)  # first: unpickling the cutter imports modules
            ours.send(loader.cutter)
        yield worker
    finally:
        ours.close()
        process.kill()
        process.wait()


def _map_slots(memory: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(memory, 0), np.uint8).reshape(AHEAD, -1)


def _view(slot: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return slot[: math.prod(shape)].reshape(shape)


def _serve(socket: int, memory: int) -> None:
    """The loader process: serve requests until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    slots = _map_slots(memory)
    parent: Connection = Connection(socket)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        sys.path[:] = parent.recv()
        cutter: Cutter = parent.recv()
        while True:
            slot, crops, shape = parent.recv()
            parent.send(_write_batch(cutter, crops, _view(slots[slot], shape)))


def _write_batch(cutter: Cutter, crops: Crops, out: np.ndarray) -> DerainError | None:
    """Write a batch into a slot; returns an expected error, which the parent raises."""
    try:
        cutter.write(crops, out)
    except DerainError as error:
        return error
    return None
