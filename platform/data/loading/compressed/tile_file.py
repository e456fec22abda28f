"""The file of a compressed cache: a header, a table of all tiles, and the tiles as they came.

All numbers are uint64, little endian. Header: `MAGIC`, and the size of the file. Table: for each
tile its offset, and its CRC-32 times 2**32 plus its length; both 0 for the tiles of a pair that
cannot be decoded.
"""

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from zlib_ng.zlib_ng import crc32

from derain.data.loading.cache_builder import write_at
from derain.data.loading.compressed.tiles import encode

MAGIC = int.from_bytes(b"tiles\x00\x00\x01", "little")
_HEADER = struct.Struct("<QQ")
_ENTRY_BYTES = 16
_LENGTH = 2**32 - 1


def begin_of_tiles(tiles: int) -> int:
    """The size of the header and of the table of this many tiles, in bytes."""
    return _HEADER.size + _ENTRY_BYTES * tiles


def is_whole(path: Path, tiles: int) -> bool:
    """Whether a file has this many tiles, and the size that its header says."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    return size >= begin_of_tiles(tiles) and header == _HEADER.pack(MAGIC, size)


def table_of(data: memoryview, tiles: int) -> np.ndarray:
    """The table in the bytes of a file: uint64 (tiles, 2), a view."""
    return np.frombuffer(data, "<u8", 2 * tiles, _HEADER.size).reshape(tiles, 2)


def tiles_at(data: memoryview, entries: np.ndarray) -> Iterator[memoryview]:
    """The tiles of some entries of the table. Raises ValueError for one with another CRC-32."""
    for offset, mark in entries.tolist():
        tile = data[offset : offset + (mark & _LENGTH)]
        if not mark or crc32(tile) != mark >> 32:
            raise ValueError(f"the tile at {offset} has another CRC-32 than in the table")
        yield tile


class TileWriter:
    """Writes the images of a cache, from several threads; `begins` are numbers of first tiles.

    Raises OSError if the disk is full; `expected` bytes are reserved at once.
    """

    needs_both = True

    def __init__(self, out: BinaryIO, tiles: int, expected: int) -> None:
        self._out, self._tiles = out, tiles
        self._end = begin_of_tiles(tiles)
        self._lock = threading.Lock()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, max(expected, self._end))
        else:
            out.truncate(self._end)

    def write(
        self,
        begins: tuple[int, int],
        rainy: np.ndarray | None,
        clean: np.ndarray | None,
    ) -> None:
        """Write a pair; nothing without its clean image, which an earlier pair may have written."""
        if clean is None:
            return
        rain_begin, clean_begin = begins
        if clean_begin > rain_begin:
            self._append(clean_begin, encode(clean))
        if rainy is not None:
            self._append(rain_begin, encode(rainy, clean))

    def finish(self) -> None:
        """Write the header, and give back what was reserved and not needed."""
        self._out.truncate(self._end)
        write_at(self._out, 0, np.frombuffer(_HEADER.pack(MAGIC, self._end), np.uint8))

    def _append(self, begin: int, tiles: list[bytes]) -> None:
        data = b"".join(tiles)
        with self._lock:
            at, self._end = self._end, self._end + len(data)
        write_at(self._out, at, np.frombuffer(data, np.uint8))
        lengths = np.array([len(tile) for tile in tiles], np.uint64)
        sums = np.array([crc32(tile) for tile in tiles], np.uint64)
        offsets = at + np.cumsum(lengths) - lengths
        entries = np.stack([offsets, sums << np.uint64(32) | lengths], axis=1).astype("<u8")
        write_at(self._out, begin_of_tiles(begin), entries.view(np.uint8))
