"""What a batch of images is to a network, and how one is made of decoded images."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

ImageBatch = Float[Tensor, "batch 3 height width"]
"""NCHW, RGB."""


def image_batch(
    images: UInt8[Tensor, "batch height width 3"],
    memory_format: torch.memory_format = torch.preserve_format,
) -> ImageBatch:
    """NHWC RGB in 0..255 -> NCHW, float32 in [0, 1], on the same device."""
    nchw = images.permute(0, 3, 1, 2)
    return nchw.to(torch.float32, memory_format=memory_format).div_(255)
