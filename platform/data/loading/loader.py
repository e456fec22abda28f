"""Batches from cache, order and augmentation: a batch is a pure function of its position.

There is no hidden state to save: the same (epoch, offset) gives the same samples with the same
crops in any process and with any number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from derain.config import Config
from derain.config.data import DataConfig
from derain.config.training import Stage
from derain.data.loading import order
from derain.data.loading.augment import build_augmentation
from derain.data.loading.cache import open_pixels
from derain.data.loading.crops import Crops, Cutter, Epochs
from derain.data.loading.order import Recipe
from derain.data.loading.pixels import Pixels
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
        self.cutter = Cutter(pixels, own)
        self._epochs = Epochs(recipe, augment)
        self._recipe = recipe
        self._stages = stages
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
        self._decode_after(plan)
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
            ids=self._epochs.ids(at.epoch, slice(first, last)),
            share=(last - first) / (end - at.offset),
            crop_px=stage.crop_px,
            following=following,
        )

    def crops(self, plan: BatchPlan) -> Crops:
        """Which crops a plan consists of."""
        return self._epochs.crops(plan.epoch, plan.positions)

    def write_crops(self, plan: BatchPlan, out: np.ndarray) -> None:
        """Write the crops of a plan into `out`: uint8, of the plan's shape."""
        self.cutter.write(self.crops(plan), out)

    def _decode_after(self, plan: BatchPlan) -> None:
        """Begin to decode the batches after a plan, if their datasets are in no cache yet."""
        for _ in range(_BATCHES_AHEAD if self.cutter.decodes else 0):
            plan = self.plan(plan.following)
            self.cutter.decode(self.crops(plan))


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
