"""A crop as every peer's loader has to cut it: crop first, then turn only the crop."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from derain.data.loading.augment import SYMMETRIES, transform

Files = Sequence[tuple[Path, Path]]
"""Rainy and clean image of each pair."""
Turn = Callable[[np.ndarray, np.ndarray, int], None]
"""Writes a square under one of the 8 symmetries: out, square, symmetry."""
Batches = Callable[[], Iterator[torch.Tensor]]
"""Starts an epoch; its batches are uint8 (pairs, 2, crop_px, crop_px, 3)."""


def with_numpy(out: np.ndarray, square: np.ndarray, symmetry: int) -> None:
    """Copy a square under a symmetry as numpy does it fastest: channel by channel from a copy in
    the processor's cache, unless rows stay rows."""
    view = transform(square, symmetry)
    if view.strides[2:] == (3, 1):
        out[...] = view
        return
    view = transform(square.copy(), symmetry)
    for channel in range(3):
        out[..., channel] = view[..., channel]


@dataclass(frozen=True)
class Cut:
    """Crop and augment a pair: uint8 (2, height, width, 3) -> (2, crop_px, crop_px, 3)."""

    crop_px: int
    augment: str
    turn: Turn = with_numpy

    def __call__(self, pair: np.ndarray) -> torch.Tensor:
        return self.turned(pair[(slice(None), *self.window(pair.shape[1:3]))])

    def window(self, size: Sequence[int]) -> tuple[slice, slice]:
        """Where to crop an image of that height and width."""
        y, x = (random.randrange(side - self.crop_px + 1) for side in size)
        return slice(y, y + self.crop_px), slice(x, x + self.crop_px)

    def turned(self, square: np.ndarray) -> torch.Tensor:
        """A copy of a pair of crops under a random symmetry."""
        out = np.empty(square.shape, np.uint8)
        self.turn(out, square, random.choice(SYMMETRIES[self.augment]))
        return torch.from_numpy(out)
