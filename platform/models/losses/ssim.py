"""SSIM for training: of RGB, on the device of the images, differentiable."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from derain.models.shapes import ImageBatch

WINDOW_PX = 11
SIGMA_PX = 1.5
C1 = 0.01**2
C2 = 0.03**2


def ssim(output: ImageBatch, clean: ImageBatch) -> Float[Tensor, ""]:
    """Mean SSIM over pixels, channels and images, in [-1, 1]; 1 for equal images.

    NCHW RGB in [0, 1], at least 11 px per side. Gaussian window of 11x11 with sigma 1.5,
    K = (0.01, 0.03), L = 1, complete windows only, in float32. PReNet trains on -SSIM, RDMC on
    1 - SSIM; differs from their public code, which pads both images with five pixels of zeros and
    so raises SSIM at the border. Not for reporting: `derain.evaluation` measures images under
    named protocols.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004, equation 13.

    Raises ValueError for images smaller than the window.
    """
    if min(output.shape[-2:]) < WINDOW_PX:
        raise ValueError(
            f"ssim expects at least {WINDOW_PX} px per side, got {tuple(output.shape[-2:])} "
            "(height, width)"
        )
    with torch.autocast(output.device.type, enabled=False):
        x, y = output.float(), clean.float()
        maps = torch.cat((x, y, x * x + y * y, x * y), dim=1)
        mean_x, mean_y, squares, product = _local_means(maps).chunk(4, dim=1)
        product_of_means = mean_x * mean_y
        squares_of_means = mean_x.square() + mean_y.square()
        similar = (2 * product_of_means + C1) * (2 * (product - product_of_means) + C2)
        total = (squares_of_means + C1) * (squares - squares_of_means + C2)
        return (similar / total).mean()


def _local_means(
    maps: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels inner_height inner_width"]:
    """Gaussian-weighted means of complete windows, computed in two passes."""
    distance = torch.arange(WINDOW_PX, device=maps.device, dtype=maps.dtype) - WINDOW_PX // 2
    window = torch.exp(-distance.square() / (2 * SIGMA_PX**2))
    window = (window / window.sum()).expand(maps.shape[1], 1, 1, WINDOW_PX)
    rows = F.conv2d(maps, window, groups=maps.shape[1])
    return F.conv2d(rows, window.transpose(2, 3), groups=maps.shape[1])
