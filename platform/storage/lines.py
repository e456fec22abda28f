"""Appending to a file: all of it or nothing, also on a disk that fills up in between."""

import contextlib
import os


def append_whole(handle: int, data: bytes) -> None:
    """Append to a file that was opened with O_APPEND; after an OSError, none of it is there.

    A system that has room for a part of the data writes that part, and refuses the rest. The part
    is taken back, unless another process has appended since.
    """
    written = 0
    try:
        while written < len(data):
            written += os.write(handle, data[written:])
    except OSError:
        end = os.lseek(handle, 0, os.SEEK_CUR)  # after the last byte that this process appended
        with contextlib.suppress(OSError):
            if written and os.fstat(handle).st_size == end:
                os.ftruncate(handle, end - written)
        raise
