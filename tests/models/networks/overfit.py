"""Rainy and clean images that a small network learns in seconds."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.losses.ssim import ssim


def streaks(side_px: int) -> tuple[Tensor, Tensor]:
    """Two rainy and two clean images, NCHW: vertical streaks on smooth colours."""
    colours = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    clean = F.interpolate(colours, size=side_px, mode="bilinear")
    rain = (torch.rand(2, 1, 1, side_px, generator=torch.Generator().manual_seed(2)) > 0.8) * 0.4
    return (clean + rain).clamp(0, 1), clean


def assert_overfits(network: nn.Module, steps: int) -> None:
    """1 - SSIM falls to a fifth of the rainy images' in this many steps of Adam."""
    rainy, clean = streaks(16)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 1 - ssim(network(rainy), clean)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * (1 - ssim(rainy, clean).item())
