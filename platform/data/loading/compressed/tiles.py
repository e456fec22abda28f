"""Compressed tiles of images, of which a crop decodes only those that it touches.

A tile is 32 rows of 64 pixels. Of a rainy image its difference from the clean one is stored. Then,
modulo 256: red and blue minus green, and each row minus the one above it in the tile. Small values
of both signs become small unsigned ones (zigzag), whose bits are stored plane by plane, because the
planes of the high bits are all but empty, and LZ4 shortens those. All steps but the last two are
sums, so numpy undoes them for all tiles of both images together.

Measured beside other tile sizes and codecs: docs/measurements/benchmarks.md, larger than the cache.
"""

from collections.abc import Iterable
from itertools import pairwise

import cv2
import imagecodecs
import numpy as np
import pyarrow as pa

ROWS, COLUMNS = 32, 64
TILE_BYTES = 3 * ROWS * COLUMNS
_LZ4 = pa.Codec("lz4_raw", compression_level=4)
"""Raw blocks, found by the slower search: 92 % of the bytes of the fast one, and decoded as fast.
A call of pyarrow's takes an eighth of the time of imagecodecs' (0.5 and 4 us), and a crop 30."""


def grid(height: int, width: int) -> tuple[int, int]:
    """The numbers of tiles above each other and beside each other in an image."""
    return -(-height // ROWS), -(-width // COLUMNS)


def tile_counts(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The number of tiles of images with these heights and widths: int64."""
    return -(-heights.astype(np.int64) // ROWS) * -(-widths.astype(np.int64) // COLUMNS)


def encode(image: np.ndarray, partner: np.ndarray | None = None) -> list[bytes]:
    """The tiles of an image, uint8 HWC RGB, row by row; `partner`: of a rainy one the clean one."""
    levels = image if partner is None else image - partner
    height, width, _ = levels.shape
    down, across = grid(height, width)
    # What is beyond the edges costs nothing: there every row is equal to the one above it.
    planes = np.zeros((3, down * ROWS, across * COLUMNS), np.uint8)
    planes[:, :height, :width] = levels.transpose(2, 0, 1)
    planes[:, height:, :width] = planes[:, height - 1 : height, :width]
    planes[::2] -= planes[1]
    tiles = planes.reshape(3, down, ROWS, across, COLUMNS).transpose(1, 3, 0, 2, 4).copy()
    tiles[..., 1:, :] -= tiles[..., :-1, :].copy()
    signed = tiles.view(np.int8)
    zigzag = ((signed << 1) ^ (signed >> 7)).view(np.uint8).reshape(-1)
    bits = imagecodecs.bitshuffle_encode(zigzag, itemsize=1, blocksize=TILE_BYTES)
    parts = np.frombuffer(bits, np.uint8).reshape(-1, TILE_BYTES)
    return [_LZ4.compress(part, asbytes=True) for part in parts]


def decode(
    tiles: Iterable[bytes | memoryview],
    shape: tuple[int, int],
    window: tuple[int, int, int, int],
) -> np.ndarray:
    """A window of a pair: uint8 (2, height, width, 3), RGB; the rainy image is the first.

    `tiles` are those that the window touches, row by row, of the rainy and then of the clean image;
    `shape` is their number in rows and columns; `window` is top, left, height and width in px from
    the corner of the first tile. What is no tile is a ValueError, or gives any pixels: whoever has
    tiles checks them.
    """
    down, across = shape
    top, left, height, width = window
    packed = np.frombuffer(b"".join(map(_unpacked, tiles)), np.uint8)
    bits = np.empty(packed.size, np.uint8)
    imagecodecs.bitshuffle_decode(packed, itemsize=1, blocksize=TILE_BYTES, out=bits)
    found = bits.reshape(2, down, across, 3, ROWS, COLUMNS).transpose(4, 0, 3, 1, 2, 5)
    # By the row in the tile first, so that adding a row to the next one is a single operation.
    rows = np.empty((ROWS, 2, 3, down, width), np.uint8)
    for number in range(across):
        begin = number * COLUMNS - left
        first, last = max(begin, 0), min(begin + COLUMNS, width)
        rows[..., first:last] = found[..., number, first - begin : last - begin]
    _undo_zigzag(rows)
    rows[:, 0] += rows[:, 1]
    for above, line in pairwise(rows):
        np.add(above, line, out=line)
    planes = np.empty((2, 3, down, ROWS, width), np.uint8)
    levels = rows.transpose(1, 2, 3, 0, 4)
    planes[:, 1] = levels[:, 1]
    np.add(levels[:, ::2], levels[:, 1:2], out=planes[:, ::2])
    channels = planes.reshape(2, 3, -1, width)[:, :, top : top + height]
    pair = np.empty((2, height, width, 3), np.uint8)
    for image, out in zip(channels, pair, strict=True):
        cv2.merge(list(image), out)
    return pair


def _unpacked(tile: bytes | memoryview) -> bytes:
    try:
        found: bytes = _LZ4.decompress(tile, TILE_BYTES, asbytes=True)
    except OSError as error:
        raise ValueError(str(error)) from None
    return found


def _undo_zigzag(values: np.ndarray) -> None:
    sign = values & 1
    np.negative(sign, out=sign)
    values >>= 1
    values ^= sign
