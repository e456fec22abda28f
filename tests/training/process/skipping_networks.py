"""User-defined networks that do not use all of their parameters in every step."""

import torch
from torch import Tensor, nn


class Unused(nn.Module):
    """Has a head that the forward pass does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


class Sometimes(Unused):
    """Skips a branch at random, on each rank for itself."""

    def forward(self, x: Tensor) -> Tensor:
        derained = super().forward(x)
        if self.training and torch.rand(()) < 0.5:
            return derained
        return derained + 0.1 * self.head(x)
