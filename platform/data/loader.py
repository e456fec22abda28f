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
    """The next sample to train on: `offset` samples of `epoch` are done, over all ranks."""

    epoch: int = 0
    offset: int = 0


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
        self._pixels = pixels
        self._sizes = [len(dataset) for dataset in pixels]
        self._first = np.concatenate([[0], np.cumsum(self._sizes)])
        self._batch_size = batch_size
        self._crop_px = crop_px
        self._seed = seed
        self._augment = augment
        self._rank, self._world = rank, world
        self._order = lru_cache(maxsize=2)(
            lambda epoch: order.epoch_ids(self._sizes, mix, seed, epoch)
        )

    def __len__(self) -> int:
        """Samples in an epoch."""
        return int(self._first[-1])

    def batch(self, at: Position) -> Batch[np.ndarray]:
        """This rank's part of the global batch that begins at a position."""
        batch_ids = self._order(at.epoch)[at.offset : at.offset + self._batch_size]
        ids = batch_ids[order.rank_slice(len(batch_ids), self._rank, self._world)]
        cut = ids if len(ids) else batch_ids[:1]
        pairs = self._cut(at.epoch, cut)
        return Batch(
            rain=pairs[:, 0],
            clean=pairs[:, 1],
            ids=ids,
            share=len(ids) / len(batch_ids),
            following=self._after(at, len(batch_ids)),
        )

    def _after(self, at: Position, count: int) -> Position:
        if at.offset + count < len(self):
            return Position(at.epoch, at.offset + count)
        return Position(at.epoch + 1, 0)

    def _cut(self, epoch: int, ids: np.ndarray) -> np.ndarray:
        """Crops of both pictures: uint8 (samples, 2, crop_px, crop_px, 3)."""
        draws = transforms.draw(self._seed, epoch, ids, self._augment)
        out = np.empty((len(ids), 2, self._crop_px, self._crop_px, 3), dtype=np.uint8)
        for place, sample in enumerate(ids):
            square = transforms.crop(
                self._pair(int(sample)), draws.top[place], draws.left[place], self._crop_px
            )
            out[place] = transforms.turn(square, int(draws.symmetry[place]))
        return out

    def _pair(self, sample: int) -> np.ndarray:
        dataset = int(np.searchsorted(self._first, sample, side="right")) - 1
        return self._pixels[dataset][sample - int(self._first[dataset])]


def open_all(datasets: Sequence[Prepared], config: DataConfig) -> list[Pixels]:
    """The pixels of several prepared datasets, through the node's cache."""
    return [
        open_pixels(prepared, folder=config.cache_dir, budget_gib=config.cache_gib)
        for prepared in datasets
    ]
