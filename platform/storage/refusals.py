"""What the machine refuses -> one message: which file, why, and what to do.

Files, disks, memory and sqlite raise errors of the system and of libraries. They are explained
here and nowhere else; `cli/app.py` prints the message, whichever command met them.
"""

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from derain.errors import DerainError, StorageError, UsageError

AGAIN = "run the same command again."

_SPACE = "Free some space there, or choose another folder"
_PERMISSION = "Give yourself permission there, or choose another folder"
_PATH = "Check the path, and that no other command removes it"
_DISK = "Look into the system's log, and choose another disk"
_NETWORK = "Check the address and the network"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "Allow larger files (`ulimit -f`), or choose another disk",
    errno.EROFS: "Make it writable, or choose another folder",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENAMETOOLONG: "Choose a shorter name: file systems take at most 255 bytes",
    errno.ENOENT: _PATH,
    errno.ENOTDIR: "A file is where a folder was expected: choose another path",
    errno.EISDIR: "A folder is where a file was expected: choose another path",
    errno.ELOOP: "The link leads back to itself: choose another path",
    errno.EMFILE: "Allow more open files (`ulimit -n 65536`)",
    errno.ENFILE: "Close other programs: the machine has too many open files",
    errno.EAGAIN: "Allow more processes (`ulimit -u`)",
    errno.ENOMEM: "Close other programs, or use a machine with more memory",
    errno.EBADF: "Leave it open (no `>&-`)",
    errno.ESTALE: "The network disk lost the file: wait until it is back",
    errno.EIO: _DISK,
    errno.ENODEV: "Choose a folder on a local disk: this file system cannot map files into memory",
    errno.ENOLCK: "Choose a folder on a file system with locks",
    errno.ECONNREFUSED: _NETWORK,
    errno.ECONNRESET: _NETWORK,
    errno.ETIMEDOUT: _NETWORK,
    errno.EHOSTUNREACH: _NETWORK,
    errno.ENETUNREACH: _NETWORK,
}
_PASSING = (_NETWORK, _DISK, _ADVICE[errno.ESTALE], _ADVICE[errno.EAGAIN], _ADVICE[errno.ENOMEM])
_SQLITE = {
    "unable to open database file": _PERMISSION,
    "attempt to write a readonly database": _PERMISSION,
    "database or disk is full": _SPACE,
    "disk i/o error": _DISK,
    "database is locked": "Wait until no other program writes to it, and keep it on a local disk",
}
_OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot|unable to) allocate|not enough memory", re.I
)


def expected(error: BaseException, then: str = AGAIN) -> DerainError | None:
    """The DerainError that an exception stands for; None for a bug, which keeps its traceback.

    That is an exception of ours, of the system (OSError, MemoryError), of sqlite, or of a name
    that is not UTF-8, also as the cause of what Ray raises for a task or a worker. `then` ends the
    advice: what to do once the reason is gone.
    """
    for cause in _causes(error):
        if isinstance(cause, DerainError):
            return cause
        found = _refusal(cause)
        if found is not None:
            return StorageError(f"{found[0]}. {found[1]}, then {then}")
        if isinstance(cause, UnicodeEncodeError) and cause.reason == "surrogates not allowed":
            return _not_utf8(cause)
    return None


def lasts(error: BaseException) -> bool:
    """Whether the same work would meet an expected error again; not so for networks, memory and
    failing disks, after which a restart may help."""
    if isinstance(error, OSError):
        return _ADVICE.get(error.errno or 0, _NETWORK) not in _PASSING
    return not isinstance(error, MemoryError | RuntimeError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception itself; for one of Ray's instead what it wraps, the innermost ones first.

    An error of a task that Ray raises is also an instance of its cause's class, with a traceback
    as its text: so the cause comes first.
    """
    wrapped: Any = error
    if type(error).__module__.partition(".")[0] == "ray":
        workers = (getattr(wrapped, "worker_failures", None) or {}).values()
        for cause in (*workers, getattr(wrapped, "cause", None), error.__cause__):
            if isinstance(cause, BaseException) and cause is not error:
                yield from _causes(cause)
    yield error


def _refusal(error: BaseException) -> tuple[str, str] | None:
    """What the machine refuses, and the remedy; None for any other exception."""
    text = _first_line(error)
    if isinstance(error, OSError):
        reason = error.strerror or text
        advice = _ADVICE.get(error.errno or 0, "Mend this")
        return f"{_file_of(error)}{reason}", advice
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(text)
    ):
        return (
            f"Out of memory ({text or type(error).__name__})",
            "Use smaller images or batches, fewer workers, or a machine with more memory",
        )
    return _refusal_of_sqlite(error, text)


def _refusal_of_sqlite(error: BaseException, text: str) -> tuple[str, str] | None:
    """The refusal in an error of sqlite, or of SQLAlchemy or MLflow around it."""
    library = type(error).__module__.partition(".")[0]
    if not isinstance(error, sqlite3.Error) and library not in ("sqlalchemy", "mlflow"):
        return None
    for reason, advice in _SQLITE.items():
        if reason in text.lower():
            return f"sqlite: {reason}", advice
    return None


def _file_of(error: OSError) -> str:
    """The file of an error with a colon, or nothing: some have none, some only a number."""
    name = error.filename
    if isinstance(name, bytes | str | os.PathLike) and os.fspath(name):
        return f"{os.fsdecode(name)}: "
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0].rstrip(".")


def _not_utf8(error: UnicodeEncodeError) -> UsageError:
    """The word around the bytes: the text may be a whole file that was about to be written."""
    before = re.search(r"[^\s\"]*$", error.object[: error.start])
    after = re.match(r"[^\s\"]*", error.object[error.start :])
    name = f"{before[0] if before else ''}{after[0] if after else ''}"
    return UsageError(
        f"{name!a}: expected a name in UTF-8, found other bytes. Rename the file or folder, for "
        "example with `convmv`."
    )
