"""The base class of the encoders: four feature maps, weights trained elsewhere, never updated."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from derain.models.shapes import ImageBatch

Taps = tuple[Tensor, Tensor, Tensor, Tensor]
"""Feature maps F1 to F4, NCHW, shallow ones first."""


class FrozenEncoder(nn.Module):
    """NCHW RGB, float32 in [0, 1] -> four feature maps. Normalises its input; is never trained.

    `channels` and `strides` are those of F1 to F4; height and width of an image must be multiples
    of the largest stride. It stays in evaluation mode even after `train()`, unless a subclass sets
    `drifts`, as for CLIPDenoising's encoder.
    """

    mean_std: ClassVar[tuple[Sequence[float], Sequence[float]]]
    """Mean and standard deviation of RGB in [0, 1] that the weights were trained with."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: Sequence[int], strides: Sequence[int], drifts: bool) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.drifts = drifts
        mean, std = self.mean_std
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stay in evaluation mode, unless `drifts`."""
        super().train(mode and self.drifts)
        return self

    def normalise(self, x: ImageBatch) -> ImageBatch:
        """RGB in [0, 1] -> input of the encoder, mean about 0 and standard deviation about 1."""
        return (x - self.mean) / self.std

    @torch.no_grad()
    def forward(self, x: ImageBatch) -> Taps:
        """F1 to F4 without gradient."""
        return self.features(x)

    def features(self, x: ImageBatch) -> Taps:
        """F1 to F4 as in `forward`, differentiable with respect to `x` (for feature losses)."""
        raise NotImplementedError
