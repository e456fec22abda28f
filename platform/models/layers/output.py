"""The last convolution of a network: always in float32, and optionally near zero at the start."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from derain.models.shapes import FeatureMap

Module = TypeVar("Module", bound=nn.Module)


def float32_output(layer: nn.Module, features: FeatureMap) -> Tensor:
    """Return layer(features), NCHW, in float32 even under autocast.

    Images need it: near 1, neighbouring bfloat16 values differ by 1/256.
    """
    with torch.autocast(features.device.type, enabled=False):
        return layer(features.float())


@torch.no_grad()
def start_near_zero(layer: Module) -> Module:
    """Scale the initial parameters of a layer by 1/100 in place and return the layer.

    A network that adds this layer's output to its input then starts near the identity, and every
    layer before it still gets a gradient.
    """
    for parameter in layer.parameters():
        parameter.mul_(0.01)
    return layer
