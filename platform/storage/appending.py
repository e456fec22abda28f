"""Append lines to a file, each whole or not at all."""

import os


def append_line(handle: int, line: str) -> None:
    """Append a line, UTF-8 with its newline, to a file opened for appending.

    A disk that fills up takes the beginning of a line; it is cut off again, so that the next line
    is not joined to it. Raises the OSError of the disk.
    """
    begin = os.fstat(handle).st_size
    data = f"{line}\n".encode()
    try:
        while data:
            data = data[os.write(handle, data) :]
    except OSError:
        os.ftruncate(handle, begin)
        raise
