"""Gated feed-forward layers: Restormer's, fast on a CPU, and NAFNet's SimpleGate."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.cache_blocking import run_in_row_blocks
from derain.models.shapes import FeatureMap

LANES = 8
"""Hidden channels are padded to a multiple of this: oneDNN is slower for other counts."""


class GatedFFN(nn.Module):
    """x + conv1x1(GELU(a) * b), [a, b] = depthwise3x3(conv1x1(norm(x))); see `gated_ffn`.

    a and b each have int(channels * expansion) channels. All convolutions have a bias.
    """

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.expand = nn.Conv2d(channels, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: FeatureMap, norm: nn.Module) -> FeatureMap:
        """NCHW -> NCHW, same shape. `norm` treats each pixel independently."""
        return gated_ffn(x, norm, self.expand, self.depthwise, self.project)


def gated_ffn(
    x: FeatureMap, norm: nn.Module, expand: nn.Conv2d, depthwise: nn.Conv2d, project: nn.Conv2d
) -> FeatureMap:
    """x + conv1x1(GELU(a) * b), [a, b] = depthwise3x3(conv1x1(norm(x))), NCHW, same shape.

    `norm` treats each pixel independently. Two optimisations for the CPU leave the parameters as
    they are:

    The two halves of the channels, a and b, are computed by separate convolutions. As halves of
    one tensor they would not be contiguous, and their gradients would have to be concatenated: a
    forward and backward pass of 64 channels at 128 px takes 44 ms this way, 58 ms the other.

    The hidden channels are padded with zeros to a multiple of 8 (`LANES`), which adds
    GELU(0) * 0 = 0. An expansion of 2.66 turns 32 channels into 85, padded to 88: a training step
    of CLIP-RPN takes another 9 % less.

    Source: Zamir et al., Restormer, CVPR 2022, section 3.2.
    """
    padding = -project.in_channels % LANES
    halves = tuple(zip(_halves(expand, padding), _halves(depthwise, padding), strict=True))
    last = F.pad(project.weight, (0, 0, 0, 0, 0, padding))

    def layer(rows: FeatureMap) -> FeatureMap:
        y = norm(rows)
        a, b = (
            F.conv2d(F.conv2d(y, *wide), *deep, padding=1, groups=len(deep[0]))
            for wide, deep in halves
        )
        return rows + F.conv2d(F.gelu(a) * b, last, project.bias)

    return run_in_row_blocks(layer, x, hidden=2 * last.shape[1], reach=1)


def simple_gate(x: FeatureMap) -> Float[Tensor, "batch channels//2 height width"]:
    """SimpleGate: the product of the two halves of the channels, NCHW -> half the channels.

    Source: Chen et al., NAFNet, ECCV 2022, section 3.
    """
    first, second = x.chunk(2, dim=1)
    return first * second


def _halves(conv: nn.Conv2d, padding: int) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """Weight and bias of each half of the output channels, plus `padding` channels of zeros."""
    weights = (F.pad(t, (0, 0, 0, 0, 0, 0, 0, padding)) for t in conv.weight.chunk(2))
    if conv.bias is None:
        return tuple((weight, None) for weight in weights)
    biases = (F.pad(t, (0, padding)) for t in conv.bias.chunk(2))
    return tuple(zip(weights, biases, strict=True))
