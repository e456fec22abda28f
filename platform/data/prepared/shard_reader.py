"""Reading a shard by byte range, in little memory, whatever its headers claim."""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from derain.data.prepared.shards import BLOCK
from derain.storage import files

_PIECE = 2**18
"""Bytes read at a time: they are still in the core's own cache when they are hashed."""


class ShardReader:
    """The bytes of a shard, to be used as a context manager.

    A local file is read into one buffer, range by range; a remote one is fetched whole.
    """

    def __init__(self, path: Path) -> None:
        self._whole = memoryview(path.read_bytes()) if files.is_remote(path) else None
        self._file = None if files.is_remote(path) else os.open(path, os.O_RDONLY)
        self._buffer = memoryview(bytearray(_PIECE))

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def read(self, offset: int, length: int) -> memoryview:
        """`length` bytes from `offset` on, at most 256 KiB; fewer at the end of the file.

        Valid until the next call.
        """
        if self._file is None:
            assert self._whole is not None
            return self._whole[offset : offset + length]
        view = self._buffer[: min(length, _PIECE)]
        return view[: os.preadv(self._file, [view], offset)]

    def sha256(self, offset: int, length: int) -> str:
        """SHA-256 of `length` bytes from `offset` on, or of those up to the end of the file."""
        digest = hashlib.sha256()
        last = offset + length
        while offset < last:
            piece = self.read(offset, min(_PIECE, last - offset))
            if not len(piece):
                break
            digest.update(piece)
            offset += len(piece)
        return digest.hexdigest()

    def headers(self, size: int) -> Iterator[tuple[str, int, int]]:
        """Name, offset and length of each member by the headers of a tar of `size` bytes.

        Damaged headers are skipped.
        """
        at = 0
        while at + BLOCK <= size:
            info = parse_header(bytes(self.read(at, BLOCK)))
            at += BLOCK
            if info is None:
                continue
            yield info.name, at, info.size
            if info.isreg() and info.size > 0:  # the size in a hostile header may be negative
                at += info.size + -info.size % BLOCK


def parse_header(block: bytes) -> tarfile.TarInfo | None:
    """A tar header, None if it is damaged."""
    try:
        return tarfile.TarInfo.frombuf(block, "ascii", "replace")
    except tarfile.HeaderError:
        return None
