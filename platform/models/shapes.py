"""Image batches and feature maps: their layout, and the check and conversion of image batches."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

ImageBatch = Float[Tensor, "batch 3 height width"]
"""Images as networks take and return them: NCHW, RGB, values in [0, 1]."""

FeatureMap = Float[Tensor, "batch channels height width"]
"""Features of a batch of images: NCHW, any range."""


def image_batch(
    images: UInt8[Tensor, "batch height width 3"],
    memory_format: torch.memory_format = torch.preserve_format,
) -> ImageBatch:
    """Convert decoded images, NHWC RGB uint8, to NCHW float32 in [0, 1] on the same device."""
    nchw = images.permute(0, 3, 1, 2)
    return nchw.to(torch.float32, memory_format=memory_format).div_(255)


def check_image_size(network: str, images: Tensor, stride: int) -> None:
    """Raise ValueError unless height and width of NCHW images are multiples of `stride`."""
    height, width = images.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(
            f"{network} expects height and width to be multiples of {stride}, got "
            f"{height}x{width} (height x width). Pad the images first, as the predictor does."
        )
