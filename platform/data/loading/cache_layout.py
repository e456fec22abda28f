"""Where each image of a prepared dataset is in its cache file."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from derain.data.prepared.manifest import Prepared


@dataclass(frozen=True, eq=False)
class CacheLayout:
    """Offsets of the images of each sample in a cache file: int64 bytes, in index order.

    The rainy image of a sample comes first, then its clean image, unless the sample before it has
    the same one.
    """

    rain: np.ndarray
    clean: np.ndarray
    size: int
    """Of the whole file, in bytes."""


def pixel_bytes(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The sizes of decoded images in bytes: int64."""
    return 3 * heights.astype(np.int64) * widths


def cache_layout(
    prepared: Prepared,
    size_of: Callable[[np.ndarray, np.ndarray], np.ndarray] = pixel_bytes,
) -> CacheLayout:
    """The layout of the cache file of a prepared dataset; in blocks, for the sake of memory.

    `size_of` gives the sizes of images from their heights and widths: int64. With another one than
    that of bytes, the layout is in its units.
    """
    own = _own_clean_image(prepared)
    heights, widths = prepared.column("height"), prepared.column("width")
    rain, clean = np.empty(len(own), np.int64), np.empty(len(own), np.int64)
    size = shared = 0
    for begin in range(0, len(own), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        image = size_of(heights[part], widths[part])
        used = image * (1 + own[part])
        ends = size + np.cumsum(used)
        rain[part] = ends - used
        # Offsets rise, so that of an earlier pair is the largest so far.
        clean[part] = np.maximum.accumulate(np.where(own[part], rain[part] + image, shared))
        size, shared = int(ends[-1]), int(clean[part][-1])
    return CacheLayout(rain, clean, size)


def _own_clean_image(prepared: Prepared) -> np.ndarray:
    """Whether the clean image of each pair is not the one of the pair before it: bool."""
    own = np.ones(len(prepared), bool)
    for column in (prepared.shard_numbers(), prepared.column("clean_offset")):
        own[1:] &= column[1:] == column[:-1]
    own[1:] = ~own[1:]
    return own


_BLOCK = 2**18
