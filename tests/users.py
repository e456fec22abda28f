"""Other users of the machine, whether or not the tests run as root.

Root may read and write everything. Without these three capabilities it is a user like any other,
except in programs that it starts.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

OTHER = 12345
"""A user id that has no name."""
_VERSION = 0x20080522
_FILE_PRIVILEGES = 0b1110
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER, as bits."""


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """In this thread and those it starts, the modes and owners of files apply, also to root."""
    if os.geteuid() != 0:
        yield
        return
    before = _capabilities()
    _set_effective(before[0] & ~_FILE_PRIVILEGES, before)
    try:
        yield
    finally:
        _set_effective(before[0], before)


def give_away(folder: Path) -> None:
    """Make another user the owner of a folder and all in it; only root can.

    To anybody else their own files serve as well: a test then sets modes that keep the owner out.
    """
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, OTHER, OTHER)


def _capabilities() -> list[int]:
    header, data = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    return list(data)


def _set_effective(lowest: int, capabilities: list[int]) -> None:
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(lowest, *capabilities[1:])
    if ctypes.CDLL(None, use_errno=True).capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")
