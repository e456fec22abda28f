"""Where each image of a prepared dataset is in its cache file.

That follows from the index. For a cache it is written once to a file beside it and mapped by every
process, so that 24 bytes a pair are neither computed nor held by each. File: `_HEADER`, then a
record `PLACE` for each pair. Its CRC-32 is compared at every opening; a file that does not fit is
written again, and where none can be written the places are in memory.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from zlib_ng.zlib_ng import crc32

from derain.data.prepared.manifest import Prepared
from derain.storage.atomic import new_file
from derain.storage.locks import lock_shared

PLACE = np.dtype([("rain", "<i8"), ("clean", "<i8"), ("height", "<i4"), ("width", "<i4")])
"""Of a pair: the offsets of its images, and their size in pixels."""
MAGIC = b"places\x00\x01"
"""The last byte is the version: another one if the layout of a cache or the tiles change."""
_HEADER = struct.Struct("<8s32sQQI4x")
"""MAGIC, the SHA-256 of the index, pairs, size of the cache, CRC-32 of the records and of these."""
_PIECE = 2**20

SizeOf = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Gives the sizes of images, int64, from their heights and widths."""


@dataclass(frozen=True, eq=False)
class CacheLayout:
    """Places of the images of each sample in a cache file, in index order.

    The rainy image of a sample comes first, then its clean image, unless the sample before it has
    the same one.
    """

    places: np.ndarray
    """For each sample a record `PLACE`."""
    size: int
    """Of the whole file, in bytes."""
    path: Path | None = None
    """The file that `places` are mapped from."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file again, which stays as long as a cache of the dataset."""
        if self.path is None:
            return CacheLayout, (self.places, self.size)
        return _mapped, (self.path,)

    @property
    def rain(self) -> np.ndarray:
        """Offsets of the rainy images: int64."""
        return self.places["rain"]

    @property
    def clean(self) -> np.ndarray:
        """Offsets of the clean images: int64."""
        return self.places["clean"]


def pixel_bytes(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The sizes of decoded images in bytes: int64."""
    return 3 * heights.astype(np.int64) * widths


def cache_layout(prepared: Prepared, size_of: SizeOf = pixel_bytes) -> CacheLayout:
    """The layout of the cache file of a prepared dataset that is no part, in memory.

    With another `size_of` than that of bytes, offsets and size are in its units.
    """
    places, begin, size = np.empty(len(prepared), PLACE), 0, 0
    for part, size in _parts(prepared, size_of):  # noqa: B007 (the last size is that of all)
        places[begin : begin + len(part)] = part
        begin += len(part)
    return CacheLayout(places, size)


def kept_layout(prepared: Prepared, cache: Path, size_of: SizeOf = pixel_bytes) -> CacheLayout:
    """`cache_layout`, mapped from the file beside a cache, which is written if none fits.

    Several processes may do so at once: they write the same, and each file is whole or absent.
    """
    path = places_path(cache)
    found = _fitting(path, prepared)
    if found is None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path, durable=False) as file:
                _write(file, prepared, size_of)
            found = _fitting(path, prepared)
    return found or cache_layout(prepared, size_of)


def places_path(cache: Path) -> Path:
    """The file beside a cache that has its layout."""
    return cache.with_suffix(".places")


def _parts(prepared: Prepared, size_of: SizeOf) -> Iterator[tuple[np.ndarray, int]]:
    """The places of some thousand pairs at a time, and the size of the cache so far."""
    size = shared = 0
    last: tuple[Any, ...] = (None, None)
    for *clean, heights, widths in prepared.pieces("shard", "clean_offset", "height", "width"):
        own = np.zeros(len(heights), bool)
        for column, before in zip(clean, last, strict=True):
            own[:1] |= column[:1] != before
            own[1:] |= column[1:] != column[:-1]
        image = size_of(heights, widths)
        used = image * (1 + own)
        ends = size + np.cumsum(used)
        part = np.empty(len(own), PLACE)
        part["rain"], part["height"], part["width"] = ends - used, heights, widths
        # Offsets rise, so that of an earlier pair is the largest so far.
        firsts = np.where(own, part["rain"] + image, shared)
        part["clean"] = np.maximum.accumulate(firsts)
        size, shared = int(ends[-1]), int(part["clean"][-1])
        last = tuple(column[-1] for column in clean)
        yield part, size


def _write(file: BinaryIO, prepared: Prepared, size_of: SizeOf) -> None:
    size = checksum = 0
    file.seek(_HEADER.size)
    for part, size in _parts(prepared, size_of):  # noqa: B007
        file.write(part.tobytes())
        checksum = crc32(part.tobytes(), checksum)
    file.seek(0)
    file.write(_header(prepared, size, checksum))


def _header(prepared: Prepared, size: int, checksum: int) -> bytes:
    """`checksum` is the CRC-32 of the records."""
    index = bytes.fromhex(prepared.manifest.index_sha256)
    fields = MAGIC, index, len(prepared), size
    return _HEADER.pack(*fields, crc32(_HEADER.pack(*fields, 0), checksum))


def _fitting(path: Path, prepared: Prepared) -> CacheLayout | None:
    """The layout in a file; None unless it is whole and of this index."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            expected = _HEADER.size + PLACE.itemsize * len(prepared)
            if len(header) < _HEADER.size or os.fstat(file.fileno()).st_size != expected:
                return None
            size, checksum = _HEADER.unpack(header)[3], 0
            while piece := file.read(_PIECE):
                checksum = crc32(piece, checksum)
        return _mapped(path) if header == _header(prepared, size, checksum) else None
    except OSError:
        return None


def _mapped(path: Path) -> CacheLayout:
    """Whoever removes the file locks it first: so it stays as long as the places are in use."""
    with path.open("rb") as file:
        lock_shared(file)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return _mapped(path)  # it was removed meanwhile, or written by another process
        # The map has a duplicate of the file, which holds the lock.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    places = np.frombuffer(data, PLACE, offset=_HEADER.size)
    return CacheLayout(places, _HEADER.unpack_from(data)[3], path)
