"""Lock files: the system lets go for a holder that dies, however it dies."""

import contextlib
import fcntl
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

LOOK_EVERY_S = 0.2


class LockHeldError(Exception):
    """Another process holds the lock, still, after the time to wait."""


@contextlib.contextmanager
def locked(
    path: Path, *, waits_s: float = math.inf, on_wait: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the lock file `path`, which is made where it is missing, for the time of the block.

    `on_wait` is called once where another process holds it. Raises LockHeldError where that one
    still does after `waits_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if not try_lock(file):
            if on_wait:
                on_wait()
            _wait_for(file, path, waits_s)
        yield


def try_lock(file: IO[Any] | int) -> bool:
    """Lock an open file until it is closed; False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(file: IO[Any]) -> None:
    """Lock an open file against those who want it alone, until it is closed."""
    fcntl.flock(file, fcntl.LOCK_SH)


def _wait_for(file: IO[Any], path: Path, waits_s: float) -> None:
    if waits_s == math.inf:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + waits_s
    while not try_lock(file):
        if time.monotonic() > deadline:
            raise LockHeldError(str(path))
        time.sleep(LOOK_EVERY_S)
