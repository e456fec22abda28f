"""The blocks that the decoder of FCLIP-UNet is made of: ConvNeXt and upsampling."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.depthwise import DepthwiseConv2d
from derain.models.layers.slabs import in_slabs


class ConvNeXtBlock(nn.Module):
    """x + DropPath(gamma * MLP(LayerNorm(DepthwiseConv7x7(x)))), MLP = Linear, GELU, Linear.

    gamma is one learnt number a channel that starts at `layer_scale`; the MLP is four times as
    wide as x; LayerNorm is over channels, eps 1e-6. NCHW in and out, same shape.

    Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022, section 2 and figure 4.
    """

    def __init__(self, channels: int, layer_scale: float = 1e-6, drop_path: float = 0.0) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv2d(channels, 7)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW."""
        y = in_slabs(self._mlp, self.depthwise(x), hidden=self.expand.out_features)
        return x + self.drop_path(y)

    def _mlp(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """gamma * MLP(LayerNorm(.)); gamma goes into the weights, which are less than an image."""
        y = F.gelu(self.expand(self.norm(x.permute(0, 2, 3, 1))))
        weight, bias = self.gamma[:, None] * self.project.weight, self.gamma * self.project.bias
        return F.linear(y, weight, bias).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Zero a whole residual branch for a share `rate` of the samples, in training only.

    The branches that stay are divided by 1 - rate, so that the mean is kept.
    Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop_path is a probability in [0, 1), got {rate}")
        self.rate = rate

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW."""
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * keep / (1.0 - self.rate)


def upsample2(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Bilinear, twice as high and wide, align_corners=False (not stated in the paper)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class UpDWBlock(nn.Module):
    """Twice the size: with u = upsample2(x), y = Conv1x1(GELU(DepthwiseConv3x3(u))) + Conv1x1(u).

    The second convolution goes before its upsampling, see `BilinearUp`.

    The paper names the block and says that it lowers the loss of upsampling; what is inside is
    not stated in the paper. This is a reading of the name.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels 2*height 2*width"]:
        """NCHW -> NCHW."""
        y = self.pointwise(F.gelu(self.depthwise(upsample2(x))))
        return y + upsample2(self.shortcut(x))


class BilinearUp(nn.Module):
    """Twice the size: bilinear and a 1x1 convolution, the ablation without UpDWBlock (Table 8).

    The convolution goes first: both orders give the same result, this one a quarter of the work.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels 2*height 2*width"]:
        """NCHW -> NCHW."""
        return upsample2(self.pointwise(x))
