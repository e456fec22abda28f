"""PReNet and PReNet_r: one small residual network with an LSTM, applied several times."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

RES_BLOCKS = 5


class PReNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB in [0, 1], of any height and width.

    With O the rainy image, x_0 = O and h_0 = c_0 = 0, for k = 1..recursions:

        z         = relu(conv0([O, x_{k-1}]))
        i, f, o   = sigmoid(conv_{i,f,o}([z, h_{k-1}]))      input, forget and output gate
        g         = tanh(conv_g([z, h_{k-1}]))
        c_k       = f c_{k-1} + i g,  h_k = o tanh(c_k)
        y         = relu(y + relu(conv(relu(conv(y)))))      five times, from y = h_k
        x_k       = O + conv(y)

    All convolutions are 3x3 and have a bias. The output x_recursions is not clamped.

    With the defaults this is the published PReNet (168,963 parameters), with `shared_blocks` the
    published PReNet_r (94,979), whose five residual blocks are one. The names in the state dict
    are those of the published weights. Published training minimises -SSIM of the last output.

    Source: Ren et al., "Progressive Image Deraining Networks: A Better and Simpler Baseline",
    CVPR 2019, section 3.

    Raises ValueError for fewer than one recursion or channel.
    """

    stride = 1
    """Images of every size fit."""

    frozen: tuple[str, ...] = ()

    def __init__(
        self, *, recursions: int = 6, width: int = 32, shared_blocks: bool = False
    ) -> None:
        """
        recursions: how often the network is applied; the parameters stay the same.
        width: channels of all features; 32 is published.
        shared_blocks: one residual block five times (PReNet_r) instead of five.
        """
        super().__init__()
        if recursions < 1 or width < 1:
            raise ValueError(f"recursions and width are at least 1, got {recursions=} and {width=}")
        self.recursions = recursions
        self.shared_blocks = shared_blocks
        self.conv0 = nn.Sequential(_conv(6, width), nn.ReLU())
        for gate, squash in zip("ifgo", (nn.Sigmoid, nn.Sigmoid, nn.Tanh, nn.Sigmoid), strict=True):
            self.add_module(f"conv_{gate}", nn.Sequential(_conv(2 * width, width), squash()))
        for number in range(1, 2 if shared_blocks else RES_BLOCKS + 1):
            self.add_module(f"res_conv{number}", _res_conv(width))
        self.conv = nn.Sequential(_conv(width, 3))

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Rainy -> clean, NCHW RGB in [0, 1] (the output not clamped)."""
        gates = self._gates()
        size = (x.shape[0], self.conv[0].in_channels, *x.shape[-2:])
        hidden = cell = x.new_zeros(size)
        output = x
        for _ in range(self.recursions):
            features = self.conv0(torch.cat((x, output), dim=1))
            hidden, cell = _lstm(features, hidden, cell, *gates)
            output = x + self._residue(self._res_blocks(hidden))
        return output

    def _gates(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the four gates as one convolution: the same sums in a larger piece."""
        convs: list[Any] = [self.get_submodule(f"conv_{gate}.0") for gate in "ifog"]
        return torch.cat([c.weight for c in convs]), torch.cat([c.bias for c in convs])

    def _res_blocks(
        self, y: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        for number in range(1, RES_BLOCKS + 1):
            block = self.get_submodule(f"res_conv{1 if self.shared_blocks else number}")
            y = F.relu(y + block(y))
        return y

    def _residue(
        self, y: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        # Under autocast too the image itself is float32: bfloat16 near 1 steps by 1/256.
        with torch.autocast(y.device.type, enabled=False):
            return self.conv(y.float())


def _lstm(
    features: Float[Tensor, "batch channels height width"],
    hidden: Float[Tensor, "batch channels height width"],
    cell: Float[Tensor, "batch channels height width"],
    weight: Float[Tensor, "gates in_channels 3 3"],
    bias: Float[Tensor, " gates"],
) -> tuple[Tensor, Tensor]:
    """One step of the convolutional LSTM -> (hidden, cell)."""
    gates = F.conv2d(torch.cat((features, hidden), dim=1), weight, bias, padding=1)
    opening, proposal = gates.split((3 * features.shape[1], features.shape[1]), dim=1)
    take, keep, show = opening.sigmoid().chunk(3, dim=1)
    cell = keep * cell + take * proposal.tanh()
    return show * cell.tanh(), cell


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _res_conv(width: int) -> nn.Sequential:
    return nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU())
