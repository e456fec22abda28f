"""Errors of Ray tasks and of the disk -> one message that says what happened and what to do."""

import contextlib
import errno
from collections.abc import Iterator

import ray

from derain.errors import DerainError, StorageError

RUN_AGAIN = "run the same `derainctl prepare` again: finished shards are kept."


@contextlib.contextmanager
def explaining_errors() -> Iterator[None]:
    """Raise an expected error of a Ray task as itself, and an OSError as a StorageError with
    advice; any other error is raised unchanged."""
    try:
        yield
    except (ray.exceptions.RayTaskError, OSError) as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, DerainError):
            raise cause from None
        if isinstance(cause, OSError):
            raise _storage_error(cause) from error
        raise


_ADVICE = {
    errno.ENOENT: "Another `prepare` into this folder may have removed it: wait until it has ended",
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Free some space there",
    errno.EFBIG: "Allow larger files (`ulimit -f`)",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Give yourself permission to write there",
    errno.EPERM: "Give yourself permission to write there",
}


def _storage_error(error: OSError) -> StorageError:
    """The file, the reason and the remedy; an unknown error number keeps its own text."""
    advice = _ADVICE.get(error.errno or 0, "Fix this")
    return StorageError(
        f"{error.filename or 'prepare'}: {error.strerror or error}. {advice}, then {RUN_AGAIN}"
    )
