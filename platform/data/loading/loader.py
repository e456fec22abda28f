"""Cache + order + transforms -> batches: a batch is a pure function of its position.

There is no hidden state to save: who knows (epoch, offset) can ask for the next batch, in another
process, with another number of workers, and gets the same samples with the same crops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from derain.config import Config
from derain.config.training import DataConfig, Stage
from derain.data.loading import order
from derain.data.loading.augment import crop, draw, write_turned
from derain.data.loading.cache import Pixels, open_pixels
from derain.data.loading.order import Recipe
from derain.data.prepared.manifest import Prepared, open_prepared

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
    is dropped and none comes twice. A rank that gets no sample of it receives one image with
    share 0, so that all ranks still take the same steps.
    """

    def __init__(
        self,
        pixels: Sequence[Pixels],
        recipe: Recipe,
        stages: Sequence[Stage],
        *,
        augment: str = "dihedral",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._pixels = pixels
        self._recipe = recipe
        self._stages = stages
        self._augment = augment
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        """Samples in an epoch."""
        return sum(self._recipe.sizes)

    @property
    def largest_bytes(self) -> int:
        """Of the pixels of this rank's part of a batch."""
        pixels = (-(-s.batch_size // self._world) * s.crop_px**2 for s in self._stages)
        return 2 * 3 * max(pixels)

    def batch(self, at: Position) -> Batch[np.ndarray]:
        """This rank's part of the global batch that begins at a position."""
        part = self.part(at)
        pixels = np.empty(part.shape, np.uint8)
        self.cut(part, pixels)
        return part.batch(pixels)

    def part(self, at: Position) -> Part:
        """What `batch` is made of, known without touching a pixel."""
        stage = order.stage_at(self._stages, at.step)
        end = min(at.offset + stage.batch_size, len(self))
        mine = order.rank_slice(end - at.offset, self._rank, self._world)
        first, last = at.offset + mine.start, at.offset + mine.stop
        ended = end == len(self)
        return Part(
            epoch=at.epoch,
            places=slice(first, last) if first < last else slice(at.offset, at.offset + 1),
            ids=self._epoch(at.epoch).ids[first:last],
            share=(last - first) / (end - at.offset),
            crop_px=stage.crop_px,
            following=Position(at.epoch + ended, 0 if ended else end, at.step + 1),
        )

    def cut(self, part: Part, out: np.ndarray) -> None:
        """Write the crops of a part: uint8, of its shape."""
        epoch = self._epoch(part.epoch)
        columns = (epoch.dataset, epoch.sample, epoch.top, epoch.left, epoch.symmetry)
        rows = zip(*(column[part.places].tolist() for column in columns), strict=True)
        for place, (dataset, sample, top, left, symmetry) in enumerate(rows):
            square = crop(self._pixels[dataset][sample], top, left, part.crop_px)
            write_turned(out[:, place], square, symmetry)

    def _epoch(self, number: int) -> "_Epoch":
        return _epoch(self._recipe, self._augment, number)


@dataclass(frozen=True)
class _Epoch:
    """The samples of an epoch in order, each column an array: drawn once, not batch by batch."""

    ids: np.ndarray
    dataset: np.ndarray
    sample: np.ndarray
    """Number within its dataset."""
    top: np.ndarray
    left: np.ndarray
    symmetry: np.ndarray


@lru_cache(maxsize=4)
def _epoch(recipe: Recipe, augment: str, number: int) -> _Epoch:
    drawn = order.epoch(recipe, number)
    draws = draw(recipe.seed, drawn.times, drawn.ids, augment)
    ends = np.cumsum(recipe.sizes)
    dataset = np.searchsorted(ends, drawn.ids, side="right")
    sample = drawn.ids - (ends - recipe.sizes)[dataset]
    return _Epoch(drawn.ids, dataset, sample, draws.top, draws.left, draws.symmetry)


def open_loader(config: Config, *, rank: int = 0, world: int = 1) -> Loader:
    """The loader of a config's training datasets, through the node's cache."""
    data = config.data
    datasets = [open_prepared(folder) for folder in data.train]
    recipe = Recipe(
        sizes=tuple(map(len, datasets)),
        seed=config.data_seed,
        mix=data.mix,
        shuffle=data.shuffle,
        strata=_strata(datasets, data.stratify) if data.stratify else None,
    )
    pixels, stages = open_all(datasets, data), config.train.stages
    return Loader(pixels, recipe, stages, augment=data.augment, rank=rank, world=world)


def _strata(datasets: Sequence[Prepared], label: str) -> np.ndarray:
    values = [value for dataset in datasets for value in dataset.labels(label)]
    return np.unique(values, return_inverse=True)[1]


def open_all(datasets: Sequence[Prepared], config: DataConfig) -> list[Pixels]:
    """The pixels of several prepared datasets, through the node's cache."""
    return [
        open_pixels(prepared, folder=config.cache_dir, budget_gib=config.cache_gib)
        for prepared in datasets
    ]
