"""An encoder of images that was trained elsewhere and is not trained here."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Taps = tuple[Tensor, Tensor, Tensor, Tensor]
"""Feature maps F1 to F4, NCHW, shallow ones first."""


class FrozenEncoder(nn.Module):
    """NCHW RGB in [0, 1] -> four feature maps; normalises by itself; nothing in it is trained.

    `channels` and `strides` are those of F1 to F4; height and width of an image must be multiples
    of the largest stride. It stays in evaluation mode whatever `train()` is told, unless a subclass
    sets `drifts`, as CLIPDenoising's encoder does.
    """

    mean_std: ClassVar[tuple[Sequence[float], Sequence[float]]]
    """What images were normalised with when the weights were trained: RGB in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: Sequence[int], strides: Sequence[int], drifts: bool) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.drifts = drifts
        for name, values in zip(("mean", "std"), self.mean_std, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stay in evaluation mode, unless `drifts`."""
        super().train(mode and self.drifts)
        return self

    def normalise(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """RGB in [0, 1] -> the encoder's input: mean about 0 and standard deviation about 1."""
        return (x - self.mean) / self.std

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Taps:
        """F1 to F4 without a graph."""
        return self.features(x)

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Taps:
        """F1 to F4 as in `forward`, differentiable with respect to `x` (for a feature loss)."""
        raise NotImplementedError
