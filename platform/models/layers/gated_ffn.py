"""The gated feed-forward part of Restormer's blocks, its two halves each by itself."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.slabs import in_slabs

Features = Float[Tensor, "batch channels height width"]

LANES = 8
"""Hidden channels are computed in multiples of this; oneDNN is slower at others."""


def gated_ffn(
    x: Features, norm: nn.Module, expand: nn.Conv2d, depthwise: nn.Conv2d, project: nn.Conv2d
) -> Features:
    """x + conv1x1(GELU(a) b), [a, b] = depthwise3x3(conv1x1(norm(x))), NCHW, same shape.

    `norm` treats every pixel by itself. On a CPU two things made it slow, which stay out of sight
    of the parameters:

    Half of the weights give a, the others b. As halves of one tensor they would have gaps in
    memory, and their gradients would have to be joined: forward and backward of 64 channels at 128
    px take 44 ms so, and took 58.

    Both are filled up with channels of zeros, which add GELU(0) 0 = 0: an expansion of 2.66 makes
    85 of 32. That takes another 9 % off a training step of CLIP-RPN.

    Source: Zamir et al., Restormer, CVPR 2022, section 3.2.
    """
    more = -project.in_channels % LANES
    halves = tuple(zip(_halves(expand, more), _halves(depthwise, more), strict=True))
    last = F.pad(project.weight, (0, 0, 0, 0, 0, more))

    def layer(rows: Features) -> Features:
        y = norm(rows)
        a, b = (
            F.conv2d(F.conv2d(y, *wide), *deep, padding=1, groups=len(deep[0]))
            for wide, deep in halves
        )
        return rows + F.conv2d(F.gelu(a) * b, last, project.bias)

    return in_slabs(layer, x, hidden=2 * last.shape[1], reach=1)


def _halves(conv: nn.Conv2d, more: int) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """Weight and bias for either half of the output channels and `more` of zeros."""
    weights = (F.pad(t, (0, 0, 0, 0, 0, 0, 0, more)) for t in conv.weight.chunk(2))
    if conv.bias is None:
        return tuple((weight, None) for weight in weights)
    biases = (F.pad(t, (0, more)) for t in conv.bias.chunk(2))
    return tuple(zip(weights, biases, strict=True))
