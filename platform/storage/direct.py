"""Writing a large file past the page cache, while the next part of it is being made.

A shard is written once and not read soon. Through the page cache its bytes would be copied once
more, take memory that others use, and keep the writer waiting at the end until they are on the
disk. O_DIRECT hands whole pieces to the disk; a thread waits for them.
"""

import errno
import fcntl
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

PIECE = 4 * 2**20
"""Bytes handed over at a time: a multiple of every disk's block."""

_DIRECT = getattr(os, "O_DIRECT", 0)


class DirectFile:
    """A new file that is written from its beginning to its end.

    A file system or a machine without O_DIRECT gets the same writes through the page cache.
    """

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        self._pieces = [memoryview(mmap.mmap(-1, PIECE)) for _ in range(2)]  # O_DIRECT wants pages
        self._filled = 0
        self._disk = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def write(self, data: bytes) -> int:
        """Append; an error of the disk may be one of the bytes before."""
        rest = memoryview(data)
        while rest:
            taken = rest[: PIECE - self._filled]
            self._pieces[0][self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rest = rest[len(taken) :]
            if self._filled == PIECE:
                self._hand_over()
        return len(data)

    def finish(self) -> None:
        """Return when every byte is on the disk."""
        self._wait()
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags & ~_DIRECT)  # the end is no whole block
        _write_all(self._file, self._pieces[0][: self._filled])
        os.fsync(self._file)

    def close(self) -> None:
        """To be called in any case."""
        self._disk.shutdown()
        os.close(self._file)

    def _hand_over(self) -> None:
        self._wait()
        self._writing = self._disk.submit(_write_all, self._file, self._pieces[0])
        self._pieces.reverse()
        self._filled = 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def _opened(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags | _DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        path.unlink(missing_ok=True)  # some file systems refuse after they have made it
        return os.open(path, flags, 0o666)


def _write_all(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]
