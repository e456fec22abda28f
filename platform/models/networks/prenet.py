"""PReNet and PReNet_r: a small recurrent residual network, applied several times."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.output import float32_output
from derain.models.shapes import FeatureMap, ImageBatch

RES_BLOCKS = 5


class PReNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1], of any height and width.

    With O the rainy image, x_0 = O and h_0 = c_0 = 0, for k = 1..recursions:

        z         = relu(conv0([O, x_{k-1}]))
        i, f, o   = sigmoid(conv_{i,f,o}([z, h_{k-1}]))      input, forget and output gate
        g         = tanh(conv_g([z, h_{k-1}]))
        c_k       = f c_{k-1} + i g,  h_k = o tanh(c_k)
        y         = relu(y + relu(conv(relu(conv(y)))))      five times, starting with y = h_k
        x_k       = O + conv(y)

    All convolutions are 3x3 and have a bias. The output is the last x_k, not clamped.

    With the defaults this is the published PReNet (168,963 parameters); with `shared_blocks` it is
    the published PReNet_r (94,979), which applies a single residual block five times. State-dict
    names are those of the published weights. Published training minimises -SSIM of the last
    output.

    Source: Ren et al., "Progressive Image Deraining Networks: A Better and Simpler Baseline",
    CVPR 2019, section 3.

    Raises ValueError for fewer than one recursion or channel.
    """

    stride = 1
    """Images of any size fit."""

    frozen: tuple[str, ...] = ()

    def __init__(
        self, *, recursions: int = 6, width: int = 32, shared_blocks: bool = False
    ) -> None:
        """
        recursions: how many times the network is applied; the parameters are shared.
        width: channels of all features; 32 in the published network.
        shared_blocks: one residual block, applied five times (PReNet_r), instead of five.
        """
        super().__init__()
        if recursions < 1 or width < 1:
            raise ValueError(f"recursions and width must be at least 1, got {recursions}, {width}")
        self.recursions = recursions
        self.shared_blocks = shared_blocks
        self.conv0 = nn.Sequential(_conv(6, width), nn.ReLU())
        self.conv_i = nn.Sequential(_conv(2 * width, width), nn.Sigmoid())
        self.conv_f = nn.Sequential(_conv(2 * width, width), nn.Sigmoid())
        self.conv_g = nn.Sequential(_conv(2 * width, width), nn.Tanh())
        self.conv_o = nn.Sequential(_conv(2 * width, width), nn.Sigmoid())
        for number in range(1, 2 if shared_blocks else RES_BLOCKS + 1):
            self.add_module(f"res_conv{number}", _res_conv(width))
        self.conv = nn.Sequential(_conv(width, 3))

    def forward(self, x: ImageBatch) -> ImageBatch:
        """Rainy -> clean, NCHW RGB, float32 in [0, 1] (the output is not clamped)."""
        gates = self._gates()
        size = (x.shape[0], self.conv[0].in_channels, *x.shape[-2:])
        hidden = cell = x.new_zeros(size)
        output = x
        for _ in range(self.recursions):
            features = self.conv0(torch.cat((x, output), dim=1))
            hidden, cell = _lstm(features, hidden, cell, *gates)
            output = x + float32_output(self.conv, self._res_blocks(hidden))
        return output

    def _gates(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the four gates as one larger convolution, with the same result."""
        gates = (self.conv_i, self.conv_f, self.conv_o, self.conv_g)
        convs: list[Any] = [gate[0] for gate in gates]
        return torch.cat([c.weight for c in convs]), torch.cat([c.bias for c in convs])

    def _res_blocks(self, y: FeatureMap) -> FeatureMap:
        for number in range(1, RES_BLOCKS + 1):
            block = self.get_submodule(f"res_conv{1 if self.shared_blocks else number}")
            y = F.relu(y + block(y))
        return y


def _lstm(
    features: FeatureMap,
    hidden: FeatureMap,
    cell: FeatureMap,
    weight: Float[Tensor, "gates in_channels 3 3"],
    bias: Float[Tensor, " gates"],
) -> tuple[Tensor, Tensor]:
    """One step of the convolutional LSTM; returns (hidden, cell)."""
    gates = F.conv2d(torch.cat((features, hidden), dim=1), weight, bias, padding=1)
    sigmoid_gates, candidate = gates.split((3 * features.shape[1], features.shape[1]), dim=1)
    input_gate, forget_gate, output_gate = sigmoid_gates.sigmoid().chunk(3, dim=1)
    cell = forget_gate * cell + input_gate * candidate.tanh()
    return output_gate * cell.tanh(), cell


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _res_conv(width: int) -> nn.Sequential:
    return nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU())
