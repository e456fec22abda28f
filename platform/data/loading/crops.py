"""The crops of an epoch by position, and cutting them: who cuts need not know the order."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from derain.data.loading.augment import augmented, crop, draw_crops, write_transformed
from derain.data.loading.order import EpochOrder, Recipe, epoch_order
from derain.data.loading.pixels import Cropping, Decoding, Pixels
from derain.plugins.protocols import Augmentation

BLOCK = 4096
"""Positions whose crops are drawn together, because drawing a few takes as long as thousands."""


@dataclass(frozen=True)
class Crops:
    """Which samples are cropped where: arrays with an entry for each crop."""

    dataset: np.ndarray
    sample: np.ndarray
    """Number of the sample within its dataset."""
    top: np.ndarray
    left: np.ndarray
    symmetry: np.ndarray
    number: np.ndarray
    """The random number of each use, for an augmentation of the user's."""

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """All arrays."""
        return self.dataset, self.sample, self.top, self.left, self.symmetry, self.number

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, part: slice) -> "Crops":
        return Crops(*(column[part] for column in self.columns))


class Epochs:
    """The samples and crops of all epochs, by position.

    The order of an epoch takes 8 bytes a sample and is drawn by a thread while the epoch before it
    is used, because that takes a third of a second per million samples.
    """

    def __init__(self, recipe: Recipe, augment: str) -> None:
        self._recipe, self._augment = recipe, augment
        self._orders: dict[int, Future[EpochOrder]] = {}
        self._block = lru_cache(maxsize=4)(self._draw_block)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process draws them itself."""
        return Epochs, (self._recipe, self._augment)

    def ids(self, epoch: int, positions: slice) -> np.ndarray:
        """The samples at some positions, numbered over all datasets: int64."""
        return self._order(epoch).ids[positions].astype(np.int64)

    def crops(self, epoch: int, positions: slice) -> Crops:
        """The crops at some positions."""
        first, last = positions.start // BLOCK, (positions.stop - 1) // BLOCK
        begin = first * BLOCK
        part = slice(positions.start - begin, positions.stop - begin)
        if first == last:
            return self._block(epoch, first)[part]
        blocks = [self._block(epoch, number).columns for number in range(first, last + 1)]
        return Crops(*map(np.concatenate, zip(*blocks, strict=True)))[part]

    def _draw_block(self, epoch: int, number: int) -> Crops:
        order, recipe = self._order(epoch), self._recipe
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        ids, times = order.ids[part].astype(np.int64), order.times[part]
        drawn = draw_crops(recipe.seed, times, ids, self._augment)
        ends = np.cumsum(recipe.sizes)
        dataset = np.searchsorted(ends, ids, side="right")
        sample = ids - (ends - recipe.sizes)[dataset]
        return Crops(dataset, sample, drawn.top, drawn.left, drawn.symmetry, drawn.number)

    def _order(self, epoch: int) -> EpochOrder:
        """The order of an epoch; has the next one drawn. Those around it are kept, because batches
        are prepared across the end of an epoch."""
        for number in (epoch, epoch + 1):
            if number not in self._orders:
                self._orders[number] = self._thread.submit(epoch_order, self._recipe, number)
        for number in [number for number in self._orders if abs(number - epoch) > 2]:
            del self._orders[number]
        return self._orders[epoch].result()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "order")


class Cutter:
    """Cuts crops out of the pixels of datasets."""

    def __init__(self, pixels: Sequence[Pixels], own: Augmentation | None) -> None:
        """`own`, an augmentation of the user's, is done to each crop."""
        self._own = own
        self._cuts = [_cut_of(each) for each in pixels]
        self._decoding = {
            number: each for number, each in enumerate(pixels) if isinstance(each, Decoding)
        }

    @property
    def decodes(self) -> bool:
        """Whether pixels may be in no cache yet."""
        return bool(self._decoding)

    def decode(self, crops: Crops) -> list[Future[None]]:
        """Begin to decode, on all cores, what of some samples is in no cache yet; returns what is
        under way."""
        return [
            task
            for number, pixels in self._decoding.items()
            for task in pixels.decode(crops.sample[crops.dataset == number].tolist())
        ]

    def write(self, crops: Crops, out: np.ndarray) -> None:
        """Write crops into `out`: uint8 (2, crops, crop_px, crop_px, 3).

        Raises DataError for a damaged shard, and for what an augmentation of the user's returns.
        """
        for task in self.decode(crops):
            task.result()
        rows = zip(*(column.tolist() for column in crops.columns), strict=True)
        for pair, row in zip(out.swapaxes(0, 1), rows, strict=True):
            dataset, sample, top, left, symmetry, number = row
            square = self._cuts[dataset](sample, top, left, out.shape[2])
            write_transformed(pair, square, symmetry)
            if self._own is not None:
                pair[...] = augmented(self._own, pair, number)


def _cut_of(pixels: Pixels) -> Callable[[int, float, float, int], np.ndarray]:
    """The crop of a sample at a place, of a size."""
    return pixels.crop if isinstance(pixels, Cropping) else partial(_cut, pixels)


def _cut(pixels: Pixels, sample: int, top: float, left: float, crop_px: int) -> np.ndarray:
    return crop(pixels[sample], top, left, crop_px)
