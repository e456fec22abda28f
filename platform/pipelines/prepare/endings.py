"""How `prepare` ends before its time: in one message that says what happened and what to do."""

import contextlib
import errno
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import ray

from derain.errors import DerainError, StoppedError, StorageError

AGAIN = "run the same `derainctl prepare` again: it keeps the shards that are finished."


@contextlib.contextmanager
def ending_at_sigterm(out: Path) -> Iterator[None]:
    """SIGTERM is an expected error, in the main thread: what is finished stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise SystemExit  # no Exception: Ray Data would print the trace of it

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except SystemExit:
        raise StoppedError(f"{out}: stopped as asked. To go on, {AGAIN}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise an expected error of a task as it was raised there, and that of a disk with advice."""
    try:
        yield
    except (ray.exceptions.RayTaskError, OSError) as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, DerainError):
            raise cause from None
        if isinstance(cause, OSError):
            raise _disk_error(cause) from error
        raise


_ADVICE = {
    errno.ENOENT: "Another `prepare` into this folder may have removed it: let that one end",
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Make room there",
    errno.EFBIG: "Allow larger files there (`ulimit -f`)",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Give yourself the right to it",
    errno.EPERM: "Give yourself the right to it",
}


def _disk_error(error: OSError) -> StorageError:
    """What failed, where, and what to do; the error of another kind keeps its words."""
    advice = _ADVICE.get(error.errno or 0, "Set that right")
    return StorageError(
        f"{error.filename or 'prepare'}: {error.strerror or error}. {advice}, then {AGAIN}"
    )
