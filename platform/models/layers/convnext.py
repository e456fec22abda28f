"""The blocks of FCLIP-UNet's decoder: ConvNeXt blocks and upsampling."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.cache_blocking import run_in_row_blocks
from derain.models.layers.depthwise import DepthwiseConv2d
from derain.models.shapes import FeatureMap


class ConvNeXtBlock(nn.Module):
    """x + DropPath(gamma * MLP(LayerNorm(DepthwiseConv7x7(x)))), MLP = Linear, GELU, Linear.

    gamma (layer scale) is learned, one number per channel, initialised to `layer_scale`. The
    hidden layer of the MLP is four times as wide as x. LayerNorm is over channels, eps 1e-6. NCHW
    in and out, same shape.

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

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        y = run_in_row_blocks(self._mlp, self.depthwise(x), hidden=self.expand.out_features)
        return x + self.drop_path(y)

    def _mlp(self, x: FeatureMap) -> FeatureMap:
        """gamma * MLP(LayerNorm(x)); gamma scales the weights, which are smaller than an image."""
        y = F.gelu(self.expand(self.norm(x.permute(0, 2, 3, 1))))
        weight, bias = self.gamma[:, None] * self.project.weight, self.gamma * self.project.bias
        return F.linear(y, weight, bias).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Zero the residual branch of each sample with probability `rate`, in training only.

    The remaining branches are divided by 1 - rate, which keeps the mean.
    Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Raises ValueError for a rate outside [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop_path must be a probability in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * keep / (1.0 - self.rate)


def upsample2(x: FeatureMap) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Double height and width, bilinear, align_corners=False (not stated in the paper)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class UpDWBlock(nn.Module):
    """Double height and width: y = Conv1x1(GELU(DepthwiseConv3x3(u))) + Conv1x1(u), u = up(x).

    up is `upsample2`. The second convolution is computed before the upsampling, see `BilinearUp`.

    Stated in the paper (FCLIP-UNet): the name, and that the block reduces the loss from
    upsampling. Not stated in the paper: what is inside; this is a reading of the name.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels 2*height 2*width"]:
        """NCHW -> NCHW."""
        y = self.pointwise(F.gelu(self.depthwise(upsample2(x))))
        return y + upsample2(self.shortcut(x))


class BilinearUp(nn.Module):
    """Double height and width: bilinear and a 1x1 convolution; Table 8's ablation of UpDWBlock.

    The convolution is computed first: either order gives the same result, this one with a quarter
    of the multiply-adds.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels 2*height 2*width"]:
        """NCHW -> NCHW."""
        return upsample2(self.pointwise(x))
