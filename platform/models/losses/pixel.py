"""Pixel losses: between two images, per pixel or per window, without a network."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from derain.models.losses.ssim import ssim
from derain.models.shapes import ImageBatch

PixelLoss = Callable[[Tensor, Tensor], Tensor]

EDGE_WEIGHT = 0.05
MSE_WEIGHT = 0.1
PYRAMID = (0.05, 0.25, 0.4, 0.25, 0.05)
"""Burt and Adelson's 5-tap filter, the smoothing of MPRNet's edge loss."""


def charbonnier(output: ImageBatch, clean: ImageBatch, eps: float = 1e-3) -> Float[Tensor, ""]:
    """mean sqrt(d^2 + eps^2), d = output - clean: smoothed L1 (Charbonnier et al., 1994)."""
    return torch.sqrt((output - clean).square() + eps**2).mean()


def charbonnier_edge(output: ImageBatch, clean: ImageBatch) -> Float[Tensor, ""]:
    """charbonnier(output, clean) + 0.05 charbonnier(laplacian(output), laplacian(clean)).

    Source: Zamir et al., "Multi-Stage Progressive Image Restoration" (MPRNet), CVPR 2021,
    equations 1 to 3.
    """
    edges = charbonnier(laplacian(output), laplacian(clean))
    return charbonnier(output, clean) + EDGE_WEIGHT * edges


def laplacian(x: ImageBatch) -> ImageBatch:
    """x minus its copy at half size, smoothed before and after: a level of a Laplacian pyramid.

    Borders are replicated, as in MPRNet's public code.
    Source: Burt & Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983.
    """
    smooth = _smoothed(x)
    sparse = torch.zeros_like(smooth)
    sparse[..., ::2, ::2] = 4 * smooth[..., ::2, ::2]
    return x - _smoothed(sparse)


def dissimilarity(output: ImageBatch, clean: ImageBatch) -> Float[Tensor, ""]:
    """1 - SSIM, see `ssim`; PReNet's training loss is -SSIM."""
    return 1 - ssim(output, clean)


def mse_ssim(output: ImageBatch, clean: ImageBatch) -> Float[Tensor, ""]:
    """0.1 MSE + 1 - SSIM, the weights of RDMC's public code; for the border see `ssim`."""
    return MSE_WEIGHT * F.mse_loss(output, clean) + dissimilarity(output, clean)


PIXEL_LOSSES: dict[str, PixelLoss] = {
    "l1": F.l1_loss,
    "mse": F.mse_loss,
    "charbonnier": charbonnier,
    "charbonnier_edge": charbonnier_edge,
    "ssim": dissimilarity,
    "mse_ssim": mse_ssim,
}
"""Pixel losses by their name in the config. Each takes two image batches, NCHW RGB in [0, 1], and
returns a scalar, 0 for equal images (eps for Charbonnier losses)."""


def _smoothed(x: ImageBatch) -> ImageBatch:
    taps = torch.tensor(PYRAMID, device=x.device, dtype=x.dtype).expand(3, 1, 1, 5)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(x, taps, groups=3), taps.transpose(2, 3), groups=3)
