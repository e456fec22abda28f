"""The parts that the decoder of FCLIP-UNet is made of."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.depthwise import DepthwiseConv2d
from derain.models.slabs import in_slabs

LDFPSKind = Literal["multiplicative", "additive", "statistics"]


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
        """gamma * MLP(LayerNorm(.)); gamma goes into the weights, which are less than a picture."""
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


class LDFPS(nn.Module):
    """Noise on the skip features in training, level i with its own strength sigma_i.

    With n ~ N(0, 1) and F the features of one level:

        multiplicative  F (1 + sigma n), n for every element
        additive        F + sigma std(F) n, n for every element, std over one sample
        statistics      s' (F - mu) / s + mu', mu' = mu + sigma std_B(mu) n1,
                        s' = s + sigma std_B(s) n2; mu and s over the pixels of one channel of one
                        sample, std_B over the batch (population), n1 and n2 for every channel of
                        every sample. A batch of one has std_B = 0 and stays as it is.

    In evaluation, and at a level whose sigma is 0, the features come back untouched.

    The noise comes from PyTorch's default generator of the tensor's device, level by level, and
    is drawn in training at every level, also where sigma is 0. So two runs that seed a step alike
    see the same n at every level whatever their sigmas (common random numbers), and what is drawn
    later is the same too; all sigmas 0 is the fair partner of a run with LDFPS.

    Stated in the paper: the per-level strengths and that they grow with depth (Table 11). The
    formula is not stated in the paper: "multiplicative" is what CLIPDenoising (Cheng et al.,
    CVPR 2024), its ancestor, does; "statistics" follows FedFA (Zhou & Konukoglu, ICLR 2023),
    which it cites.
    """

    def __init__(self, sigmas: Sequence[float], kind: LDFPSKind = "multiplicative") -> None:
        super().__init__()
        if kind not in ("multiplicative", "additive", "statistics"):
            raise ValueError(f"kind is multiplicative, additive or statistics, got {kind!r}")
        if any(sigma < 0 for sigma in sigmas):
            raise ValueError(f"The sigmas of LDFPS are not negative, got {tuple(sigmas)}")
        self.sigmas = tuple(sigmas)
        self.kind = kind

    def forward(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One NCHW tensor a level -> the same shapes and dtypes."""
        if not self.training:
            return tuple(taps)
        pairs = zip(taps, self.sigmas, strict=True)
        return tuple(self._perturb(features, sigma) for features, sigma in pairs)

    def _perturb(self, features: Tensor, sigma: float) -> Tensor:
        # float32 throughout: in bfloat16 the step at 1 is 0.008, as coarse as sigma = 0.01
        x = features.float()
        if self.kind == "statistics":
            y = _shift_statistics(x, sigma)
        else:
            noise = torch.randn(x.shape, device=x.device)
            scale = x if self.kind == "multiplicative" else _std(x, (1, 2, 3))
            y = torch.addcmul(x, scale, noise, value=sigma)
        return features if sigma == 0 else y.to(features.dtype)


def _std(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    return x.std(dim, correction=0, keepdim=True)


def _shift_statistics(
    x: Float[Tensor, "batch channels height width"], sigma: float, eps: float = 1e-6
) -> Float[Tensor, "batch channels height width"]:
    mean, std = x.mean((2, 3), keepdim=True), _std(x, (2, 3))
    noise = torch.randn(2, *mean.shape, device=x.device)
    new_mean = mean + sigma * _std(mean, 0) * noise[0]
    new_std = std + sigma * _std(std, 0) * noise[1]
    return new_std * (x - mean) / std.clamp_min(eps) + new_mean
