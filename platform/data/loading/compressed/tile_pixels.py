"""Pixels of a compressed cache, and how large the one of a dataset will be."""

from pathlib import Path

import numpy as np

from derain.data.loading.cache_builder import NEEDED, SIDES, decode_member
from derain.data.loading.cache_layout import CacheLayout, kept_layout, pixel_bytes
from derain.data.loading.compressed import tile_file, tiles
from derain.data.loading.pixels import MappedPixels
from derain.data.loading.undecodable import Reasons
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from derain.storage.files import read_range

_SAMPLE = 32
"""Pairs that are compressed to estimate the size of a cache."""
_MARGIN = 1.1
"""The shares of 32 pairs are within 10 % of those of a whole dataset of photographs."""


class TilePixels(MappedPixels):
    """Pixels of a file of compressed tiles; a crop decodes only the tiles that it touches.

    Gives the same bytes as the cache of decoded pixels. Reading raises DataError for a tile that is
    damaged.
    """

    def __init__(
        self,
        path: Path,
        layout: CacheLayout,
        left_out: Reasons,
    ) -> None:
        """`layout` counts tiles; see `tile_layout`."""
        super().__init__(path, layout, left_out)
        self._path = path
        self._table = tile_file.table_of(self._pixels, layout.size)

    @classmethod
    def is_complete(cls, path: Path, layout: CacheLayout) -> bool:
        """Whether the file has all of its bytes."""
        return tile_file.is_whole(path, layout.size)

    def _window(self, sample: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        rain, clean, *size = self._place(sample)
        _, columns = tiles.grid(*size)
        first_row, first_column = top // tiles.ROWS, left // tiles.COLUMNS
        down = (top + height - 1) // tiles.ROWS + 1 - first_row
        across = (left + width - 1) // tiles.COLUMNS + 1 - first_column
        rows = columns * np.arange(first_row, first_row + down)
        begins = np.array([rain, clean])
        numbers = (begins[:, None] + first_column + rows)[..., None] + np.arange(across)
        try:
            return tiles.decode(
                tile_file.tiles_at(self._pixels, self._table[numbers.reshape(-1)]),
                (down, across),
                (top % tiles.ROWS, left % tiles.COLUMNS, height, width),
            )
        except ValueError as error:
            raise DataError(
                f"{self._path}: damaged: {error}. Remove this file: the next command that "
                "needs it builds it again."
            ) from None


def tile_layout(prepared: Prepared, cache: Path) -> CacheLayout:
    """Which tiles of a compressed cache are those of each image, in index order."""
    return kept_layout(prepared, cache, tiles.tile_counts)


def estimated_size(prepared: Prepared, decoded: CacheLayout, tiled: CacheLayout) -> int:
    """The size of the compressed cache of a dataset in bytes, from 32 pairs all over it.

    The layouts are those of its decoded pixels and of its tiles. Images that cannot be decoded are
    left out; the size of the decoded pixels if none is left.
    """
    count = min(_SAMPLE, len(prepared))
    numbers = np.linspace(0, len(prepared) - 1, count).astype(np.int64)
    raw, packed = np.zeros(2), np.zeros(2)
    for row in prepared.rows_at(numbers).select(NEEDED).to_pylist():
        try:
            rainy, clean = (
                decode_member(
                    read_range(
                        prepared.folder / row["shard"], row[f"{side}_offset"], row[f"{side}_length"]
                    ),
                    row,
                    side,
                )
                for side in SIDES
            )
        except DataError:
            continue
        raw += rainy.nbytes
        packed += [sum(map(len, tiles.encode(*images))) for images in ((rainy, clean), (clean,))]
    if not raw.all():
        return decoded.size
    rains = int(pixel_bytes(decoded.places["height"], decoded.places["width"]).sum())
    bytes_ = float(packed / raw @ [rains, decoded.size - rains])
    return int(_MARGIN * bytes_) + tile_file.begin_of_tiles(tiled.size)
