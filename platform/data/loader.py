"""Cache + order + transforms -> batches: a batch is a pure function of its position.

There is no hidden state to save: who knows (epoch, offset) can ask for the next batch, in another
process, with another number of workers, and gets the same samples with the same crops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from derain.config import DataConfig
from derain.data import order, transforms
from derain.data.cache import Pixels, open_pixels
from derain.data.manifest import Prepared

Array = TypeVar("Array")


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` steps are done, `offset` samples of `epoch` over all ranks."""

    epoch: int = 0
    offset: int = 0
    step: int = 0


@dataclass(frozen=True)
class Batch(Generic[Array]):
    """One rank's part of a global batch: RGB, uint8 NHWC in numpy as the loader makes it."""

    rain: Array
    clean: Array
    ids: np.ndarray
    """Sample ids, int64."""
    share: float
    """This rank's samples over the global batch's; 0 for a rank that has none."""
    following: Position
    """Where the next batch begins."""


@dataclass(frozen=True)
class Part:
    """Which samples of an epoch one rank cuts for one step; no pixels yet."""

    epoch: int
    places: slice
    """Of what is cut, in the epoch's order; one sample where the rank has none."""
    ids: np.ndarray
    share: float
    crop_px: int
    following: Position

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of the pixels: side (rain, clean), samples, height, width, 3."""
        count = self.places.stop - self.places.start
        return 2, count, self.crop_px, self.crop_px, 3

    def batch(self, pixels: np.ndarray) -> Batch[np.ndarray]:
        """This part with its pixels, of `shape`."""
        return Batch(pixels[0], pixels[1], self.ids, self.share, self.following)


class Loader:
    """Batches of the training datasets for one rank.

    The last batch of an epoch is smaller where the batch size does not divide the epoch: no sample
    is dropped and none comes twice. A rank that gets no sample of it receives one picture with
    share 0, so that all ranks still take the same steps.
    """

    def __init__(
        self,
        pixels: Sequence[Pixels],
        *,
        batch_size: int,
        crop_px: int,
        seed: int,
        mix: Sequence[float] | None = None,
        augment: str = "dihedral",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        sizes = tuple(len(dataset) for dataset in pixels)
        self._pixels = pixels
        self._recipe = _Recipe(sizes, tuple(mix) if mix else None, seed, augment)
        self._batch_size = batch_size
        self._crop_px = crop_px
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        """Samples in an epoch."""
        return sum(self._recipe.sizes)

    @property
    def largest_bytes(self) -> int:
        """Of the pixels of this rank's part of a batch."""
        return 2 * -(-self._batch_size // self._world) * self._crop_px**2 * 3

    def batch(self, at: Position) -> Batch[np.ndarray]:
        """This rank's part of the global batch that begins at a position."""
        part = self.part(at)
        pixels = np.empty(part.shape, np.uint8)
        self.cut(part, pixels)
        return part.batch(pixels)

    def part(self, at: Position) -> Part:
        """What `batch` is made of, known without touching a pixel."""
        count = min(self._batch_size, len(self) - at.offset)
        mine = order.rank_slice(count, self._rank, self._world)
        first = at.offset + mine.start
        last = at.offset + mine.stop
        end = at.offset + count
        return Part(
            epoch=at.epoch,
            places=slice(first, last) if first < last else slice(at.offset, at.offset + 1),
            ids=_epoch(self._recipe, at.epoch).ids[first:last],
            share=(last - first) / count,
            crop_px=self._crop_px,
            following=Position(at.epoch, end, at.step + 1)
            if end < len(self)
            else Position(at.epoch + 1, 0, at.step + 1),
        )

    def cut(self, part: Part, out: np.ndarray) -> None:
        """Write the crops of a part: uint8, of its shape."""
        epoch, crop_px = _epoch(self._recipe, part.epoch), part.crop_px
        columns = (epoch.dataset, epoch.sample, epoch.top, epoch.left, epoch.symmetry)
        rows = zip(*(column[part.places].tolist() for column in columns), strict=True)
        for place, (dataset, sample, top, left, symmetry) in enumerate(rows):
            square = transforms.crop(self._pixels[dataset][sample], top, left, crop_px)
            transforms.write_turned(out[:, place], square, symmetry)


@dataclass(frozen=True)
class _Recipe:
    """What decides the order of samples and their crops."""

    sizes: tuple[int, ...]
    mix: tuple[float, ...] | None
    seed: int
    augment: str


@dataclass(frozen=True)
class _Epoch:
    """The samples of an epoch in order, each column an array: drawing them at once is 20 times
    cheaper a sample than batch by batch."""

    ids: np.ndarray
    dataset: np.ndarray
    sample: np.ndarray
    """Number within its dataset."""
    top: np.ndarray
    left: np.ndarray
    symmetry: np.ndarray


@lru_cache(maxsize=4)
def _epoch(recipe: _Recipe, number: int) -> _Epoch:
    ids = order.epoch_ids(recipe.sizes, recipe.mix, recipe.seed, number)
    draws = transforms.draw(recipe.seed, number, ids, recipe.augment)
    ends = np.cumsum(recipe.sizes)
    dataset = np.searchsorted(ends, ids, side="right")
    sample = ids - (ends - recipe.sizes)[dataset]
    return _Epoch(ids, dataset, sample, draws.top, draws.left, draws.symmetry)


def open_all(datasets: Sequence[Prepared], config: DataConfig) -> list[Pixels]:
    """The pixels of several prepared datasets, through the node's cache."""
    return [
        open_pixels(prepared, folder=config.cache_dir, budget_gib=config.cache_gib)
        for prepared in datasets
    ]
