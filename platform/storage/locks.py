"""Lock files. The operating system releases a lock when its holder ends, even by SIGKILL.

Some file systems have no locks (Lustre without `flock`, some FUSE file systems). There `locked`
warns once and does not wait: that no second command works on the same folder is up to the user.
What would remove the files of a process that has ended leaves them, as it may still run.
"""

import contextlib
import errno
import fcntl
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

log = logging.getLogger(__name__)

POLL_EVERY_S = 0.2
_NO_LOCKS = frozenset(
    {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL}
)
"""What flock answers on file systems without locks; EBADF is NFS's for a file opened to read."""


class LockHeldError(Exception):
    """Another process still holds the lock after the maximum wait."""


@contextlib.contextmanager
def locked(
    path: Path, *, waits_s: float = math.inf, on_wait: Callable[[], object] | None = None
) -> Iterator[bool]:
    """Hold the lock file `path` during the block; the file is created if it is missing.

    `on_wait` is called once if another process holds the lock. Gives False on a file system
    without locks, else True. Raises LockHeldError if it is still held after `waits_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_to_lock(path) as file:
        if try_lock(file):
            yield True
            return
        if try_lock(file, unsure=True):
            yield False
            return
        if on_wait:
            on_wait()
        _wait_for_lock(file, path, waits_s)
        yield True


def open_to_lock(path: Path) -> BinaryIO:
    """Open a lock file, which is created if it is missing.

    All users may lock it, whatever their umask: it has no content. One of another user that may
    only be read serves as well.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.exists():
            raise
        return path.open("rb")
    with contextlib.suppress(OSError):  # it is another user's
        path.chmod(0o666)
    return file


def try_lock(file: IO[Any] | int, *, unsure: bool = False) -> bool:
    """Lock an open file exclusively until it is closed; False if another process holds a lock.

    `unsure` is the answer on a file system without locks, where nobody can tell.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _warn_without_locks(file, error)
        return unsure
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file `path`; False if there is none, and on a file system
    without locks.

    Shares the lock for an instant to see that, for which whoever wants it should wait a moment.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def lock_within(file: IO[Any] | int, seconds: float, *, unsure: bool = False) -> bool:
    """`try_lock` until it succeeds, for up to some seconds."""
    deadline = time.monotonic() + seconds
    while not try_lock(file, unsure=unsure):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_EVERY_S)
    return True


def lock_shared(file: IO[Any]) -> None:
    """Lock an open file until it is closed; others may share the lock, but not hold it alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError as error:
        _warn_without_locks(file, error)


def _warn_without_locks(file: IO[Any] | int, error: OSError) -> None:
    if error.errno not in _NO_LOCKS:
        raise error
    name = getattr(file, "name", None)
    _warn_once(str(Path(name).parent) if isinstance(name, str | Path) else "the folder")


@functools.cache
def _warn_once(folder: str) -> None:
    log.warning(
        "%s: this file system has no locks. Make sure that no two commands use the same run or "
        "cache at the same time, or choose a folder on another disk", folder,
    )  # fmt: skip


def _wait_for_lock(file: IO[Any], path: Path, waits_s: float) -> None:
    if waits_s == math.inf:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    if not lock_within(file, waits_s):
        raise LockHeldError(str(path))
