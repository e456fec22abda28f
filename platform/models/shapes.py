"""Image batches and feature maps: their layout, and the check and conversion of image batches."""

from collections.abc import Mapping

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


def with_dimensions(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A state dict whose scalars have the one dimension that `reference` has for them.

    Earlier versions saved the learned numbers of RDMC as scalars.
    """
    return {
        name: value.reshape(1) if value.dim() == 0 and _is_one_element(reference, name) else value
        for name, value in state.items()
    }


def _is_one_element(reference: Mapping[str, Tensor], name: str) -> bool:
    return name in reference and tuple(reference[name].shape) == (1,)


def check_image_size(network: str, images: Tensor, stride: int) -> None:
    """Raise ValueError unless height and width of NCHW images are multiples of `stride`."""
    height, width = images.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(
            f"{network} expects height and width to be multiples of {stride}, got "
            f"{height}x{width} (height x width). Pad the images first, as the predictor does."
        )
