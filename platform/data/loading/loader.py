"""Batches from cache, order and augmentation: a batch is a pure function of its position.

There is no hidden state to save: the same (epoch, offset) gives the same samples with the same
crops in any process and with any number of workers.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from derain.config import Config
from derain.config.data import DataConfig
from derain.config.training import Stage
from derain.data.loading import order
from derain.data.loading.augment import (
    augmented,
    build_augmentation,
    crop,
    draw_crops,
    write_transformed,
)
from derain.data.loading.cache import open_pixels
from derain.data.loading.order import Recipe
from derain.data.loading.pixels import Decoding, Pixels
from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import open_training
from derain.plugins.protocols import Augmentation

Array = TypeVar("Array")

_BATCHES_AHEAD = 2
"""Batches that are decoded while the step before them is taken."""


@dataclass(frozen=True)
class Position:
    """Progress of a run: `step` steps are done, and `offset` samples of `epoch` over all ranks."""

    epoch: int = 0
    offset: int = 0
    step: int = 0


@dataclass(frozen=True)
class Batch(Generic[Array]):
    """One rank's part of a global batch: RGB; from the loader uint8 NHWC arrays of numpy."""

    rain: Array
    clean: Array
    ids: np.ndarray
    """Sample ids, int64."""
    share: float
    """This rank's share of the samples of the global batch; 0 for a rank without samples."""
    following: Position
    """The position of the next batch."""


@dataclass(frozen=True)
class BatchPlan:
    """The samples that one rank takes for one step; no pixels yet."""

    epoch: int
    positions: slice
    """The samples in the order of the epoch; a single one for a rank that has no samples."""
    ids: np.ndarray
    share: float
    crop_px: int
    following: Position

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape of the pixels: side (rain, clean), samples, height, width, 3."""
        count = self.positions.stop - self.positions.start
        return 2, count, self.crop_px, self.crop_px, 3

    def batch(self, pixels: np.ndarray) -> Batch[np.ndarray]:
        """The batch with these pixels, which have `shape`."""
        return Batch(pixels[0], pixels[1], self.ids, self.share, self.following)


class Loader:
    """Batches of the training datasets for one rank.

    If the batch size does not divide the epoch, the last batch of an epoch is smaller: no sample
    is dropped or repeated. A rank without a sample in it receives one image with share 0, so that
    all ranks take the same steps.
    """

    def __init__(
        self,
        pixels: Sequence[Pixels],
        recipe: Recipe,
        stages: Sequence[Stage],
        *,
        augment: str = "dihedral",
        own: Augmentation | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`own`, an augmentation of the user's, is done to the crops after `augment`."""
        self._pixels = pixels
        self._decoding = {
            number: each for number, each in enumerate(pixels) if isinstance(each, Decoding)
        }
        self._recipe = recipe
        self._stages = stages
        self._augment = augment
        self._own = own
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        """Number of samples in an epoch."""
        return sum(self._recipe.sizes)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the pixels in this rank's part of the largest batch."""
        pixels = (-(-s.batch_size // self._world) * s.crop_px**2 for s in self._stages)
        return 2 * 3 * max(pixels)

    def batch(self, at: Position) -> Batch[np.ndarray]:
        """This rank's part of the global batch that begins at a position.

        If its pixels are in no cache yet, those of the next batches are decoded meanwhile.
        """
        plan = self.plan(at)
        pixels = np.empty(plan.shape, np.uint8)
        self.write_crops(plan, pixels)
        upcoming = plan
        for _ in range(_BATCHES_AHEAD if self._decoding else 0):
            upcoming = self.plan(upcoming.following)
            self._decode(upcoming)
        return plan.batch(pixels)

    def plan(self, at: Position) -> BatchPlan:
        """The samples of `batch`, without reading a pixel."""
        stage = order.stage_at(self._stages, at.step)
        end = min(at.offset + stage.batch_size, len(self))
        part = order.rank_slice(end - at.offset, self._rank, self._world)
        first, last = at.offset + part.start, at.offset + part.stop
        if end == len(self):
            following = Position(at.epoch + 1, 0, at.step + 1)
        else:
            following = Position(at.epoch, end, at.step + 1)
        return BatchPlan(
            epoch=at.epoch,
            positions=slice(first, last) if first < last else slice(at.offset, at.offset + 1),
            ids=self._epoch(at.epoch).ids[first:last],
            share=(last - first) / (end - at.offset),
            crop_px=stage.crop_px,
            following=following,
        )

    def write_crops(self, plan: BatchPlan, out: np.ndarray) -> None:
        """Write the crops of a plan into `out`: uint8, of the plan's shape."""
        for task in self._decode(plan):
            task.result()
        epoch = self._epoch(plan.epoch)
        columns = (epoch.dataset, epoch.sample, epoch.top, epoch.left, epoch.symmetry, epoch.number)
        rows = zip(*(column[plan.positions].tolist() for column in columns), strict=True)
        for pair, row in zip(out.swapaxes(0, 1), rows, strict=True):
            dataset, sample, top, left, symmetry, number = row
            square = crop(self._pixels[dataset][sample], top, left, plan.crop_px)
            write_transformed(pair, square, symmetry)
            if self._own is not None:
                pair[...] = augmented(self._own, pair, number)

    def _decode(self, plan: BatchPlan) -> list[Future[None]]:
        """Begin to decode, on all cores, what of a plan's samples is in no cache yet."""
        epoch = self._epoch(plan.epoch)
        dataset, sample = epoch.dataset[plan.positions], epoch.sample[plan.positions]
        return [
            task
            for number, pixels in self._decoding.items()
            for task in pixels.decode(sample[dataset == number].tolist())
        ]

    def _epoch(self, number: int) -> "_Epoch":
        return _draw_epoch(self._recipe, self._augment, number)


@dataclass(frozen=True)
class _Epoch:
    """The samples of an epoch in order, with their crops: drawn once for all of its batches."""

    ids: np.ndarray
    dataset: np.ndarray
    sample: np.ndarray
    """Number of the sample within its dataset."""
    top: np.ndarray
    left: np.ndarray
    symmetry: np.ndarray
    number: np.ndarray
    """The random number of each use, for an augmentation of the user's."""


@lru_cache(maxsize=4)
def _draw_epoch(recipe: Recipe, augment: str, number: int) -> _Epoch:
    drawn = order.epoch_order(recipe, number)
    crops = draw_crops(recipe.seed, drawn.times, drawn.ids, augment)
    ends = np.cumsum(recipe.sizes)
    dataset = np.searchsorted(ends, drawn.ids, side="right")
    sample = drawn.ids - (ends - recipe.sizes)[dataset]
    return _Epoch(drawn.ids, dataset, sample, crops.top, crops.left, crops.symmetry, crops.number)


def open_loader(config: Config, *, rank: int = 0, world: int = 1) -> Loader:
    """The loader for the training datasets of a config, with their pixels in the node's cache.

    A cache that is missing fills while batches are made.
    """
    data = config.data
    datasets = open_training(data)
    recipe = Recipe(
        sizes=tuple(map(len, datasets)),
        seed=config.data_seed,
        mix=data.mix,
        shuffle=data.shuffle,
        strata=_strata(datasets, data.stratify) if data.stratify else None,
    )
    pixels = open_all_pixels(datasets, data, at_once=True)
    own = build_augmentation(data.augment)
    augment = "none" if own else data.augment.name
    return Loader(
        pixels, recipe, config.train.stages, augment=augment, own=own, rank=rank, world=world
    )


def _strata(datasets: Sequence[Prepared], label: str) -> np.ndarray:
    values = [value for dataset in datasets for value in dataset.labels(label)]
    return np.unique(values, return_inverse=True)[1]


def open_all_pixels(
    datasets: Sequence[Prepared], config: DataConfig, *, at_once: bool = False
) -> list[Pixels]:
    """The pixels of several prepared datasets, from the node's cache; see `open_pixels`."""
    return [
        open_pixels(prepared, folder=config.cache_dir, budget_gib=config.cache_gib, at_once=at_once)
        for prepared in datasets
    ]
