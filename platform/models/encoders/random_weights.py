"""Random weights for encoders (tests and demos), bit-identical on every CPU."""

import math

import torch
from torch import Tensor, nn


def randomise_resnet(net: nn.Module, generator: torch.Generator) -> None:
    """Fill a ResNet: Kaiming-uniform convolutions, BatchNorms with mean 0 and variance 1.

    Where the shortcut is a projection, it and the residual branch each carry half of the variance;
    elsewhere the branch adds a sixteenth. The feature maps thus keep a standard deviation of order
    1 at any depth.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            fill_uniform(module.weight, 2.0, generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.constant_(module.weight, _batch_norm_weight(name))
            nn.init.zeros_(module.bias)


def randomise_transformer(net: nn.Module, generator: torch.Generator) -> None:
    """Fill a transformer: uniform weights of variance 1 / fan-in, norms that are the identity."""
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() < 2 and "embedding" not in name:
            nn.init.ones_(parameter)  # weights of LayerNorms, and logit_scale, which is not used
        else:
            fill_uniform(parameter, 1.0, generator)


@torch.no_grad()
def fill_uniform(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Fill a weight in place with uniform values of variance `gain` / fan-in.

    The values are integers times a constant, so their bits are the same on every CPU; those of
    torch's initialisers depend on the type of CPU.
    """
    bound = math.sqrt(3.0 * gain / max(1, weight[0].numel()))
    integers = torch.randint(-(2**23), 2**23, weight.shape, generator=generator)
    weight.copy_(integers).mul_(bound / 2**23)


def _batch_norm_weight(name: str) -> float:
    """The weight of the BatchNorm with this name, such as `layer2.1.bn3`."""
    if name.endswith(("0.bn3", "0.downsample.1")):
        return math.sqrt(0.5)
    return 0.25 if name.endswith(".bn3") else 1.0
