"""Where each image of a prepared dataset is in its cache file."""

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


def cache_layout(prepared: Prepared) -> CacheLayout:
    """The layout of the cache file of a prepared dataset."""
    shard, offset = prepared.column("shard"), prepared.column("clean_offset")
    own = np.ones(len(prepared), bool)
    own[1:] = (shard[1:] != shard[:-1]) | (offset[1:] != offset[:-1])
    image = 3 * prepared.column("height").astype(np.int64) * prepared.column("width")
    ends = np.cumsum(image * (1 + own))
    rain = ends - image * (1 + own)
    clean = (rain + image)[own][np.cumsum(own) - 1]
    return CacheLayout(rain, clean, int(ends[-1]))
