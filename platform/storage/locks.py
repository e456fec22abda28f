"""Lock files. The operating system releases a lock when its holder ends, even by SIGKILL."""

import contextlib
import fcntl
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

POLL_EVERY_S = 0.2


class LockHeldError(Exception):
    """Another process still holds the lock after the maximum wait."""


@contextlib.contextmanager
def locked(
    path: Path, *, waits_s: float = math.inf, on_wait: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the lock file `path` during the block; the file is created if it is missing.

    `on_wait` is called once if another process holds the lock. Raises LockHeldError if it is still
    held after `waits_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if not try_lock(file):
            if on_wait:
                on_wait()
            _wait_for_lock(file, path, waits_s)
        yield


def try_lock(file: IO[Any] | int) -> bool:
    """Lock an open file exclusively until it is closed; False if another process holds a lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_shared(file: IO[Any]) -> None:
    """Lock an open file until it is closed; others may share the lock, but not hold it alone."""
    fcntl.flock(file, fcntl.LOCK_SH)


def _wait_for_lock(file: IO[Any], path: Path, waits_s: float) -> None:
    if waits_s == math.inf:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + waits_s
    while not try_lock(file):
        if time.monotonic() > deadline:
            raise LockHeldError(str(path))
        time.sleep(POLL_EVERY_S)
