"""LDFPS: noise on FCLIP-UNet's skip features during training."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from derain.models.shapes import FeatureMap

LDFPSKind = Literal["multiplicative", "additive", "statistics"]


class LDFPS(nn.Module):
    """Noise on the skip features during training, with a strength sigma_i per level i.

    With n ~ N(0, 1) and F the features of one level:

        multiplicative  F (1 + sigma n), n per element
        additive        F + sigma std(F) n, n per element, std per sample
        statistics      s' (F - mu) / s + mu', mu' = mu + sigma std_B(mu) n1,
                        s' = s + sigma std_B(s) n2; mu and s are mean and std over the pixels of
                        one channel of one sample, std_B is the population std over the batch, n1
                        and n2 are drawn per channel and sample. For a batch of one, std_B is 0
                        and the features do not change.

    In evaluation, and at a level with sigma 0, the features are returned unchanged.

    The noise is drawn from PyTorch's default generator of the tensor's device, level by level. In
    training it is drawn at every level, even where sigma is 0. Two runs with the same seed thus
    share n at every level whatever their sigmas (common random numbers), and everything drawn
    later is the same too; all sigmas 0 is the fair baseline for a run with LDFPS.

    Stated in the paper: a strength per level, growing with depth (Table 11). Not stated in the
    paper: the formula. "multiplicative" is that of its ancestor CLIPDenoising (Cheng et al., CVPR
    2024); "statistics" follows FedFA (Zhou & Konukoglu, ICLR 2023), which the paper cites.

    Raises ValueError for an unknown kind or a negative sigma.
    """

    def __init__(self, sigmas: Sequence[float], kind: LDFPSKind = "multiplicative") -> None:
        super().__init__()
        if kind not in ("multiplicative", "additive", "statistics"):
            raise ValueError(f"kind must be multiplicative, additive or statistics, got {kind!r}")
        if any(sigma < 0 for sigma in sigmas):
            raise ValueError(f"The sigmas of LDFPS must not be negative, got {tuple(sigmas)}")
        self.sigmas = tuple(sigmas)
        self.kind = kind

    def forward(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One NCHW tensor per level -> the same shapes and dtypes."""
        if not self.training:
            return tuple(taps)
        pairs = zip(taps, self.sigmas, strict=True)
        return tuple(self._perturb(features, sigma) for features, sigma in pairs)

    def _perturb(self, features: Tensor, sigma: float) -> Tensor:
        # float32 throughout: near 1, bfloat16 values are 0.008 apart, as coarse as sigma = 0.01
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


def _shift_statistics(x: FeatureMap, sigma: float, eps: float = 1e-6) -> FeatureMap:
    mean, std = x.mean((2, 3), keepdim=True), _std(x, (2, 3))
    noise = torch.randn(2, *mean.shape, device=x.device)
    new_mean = mean + sigma * _std(mean, 0) * noise[0]
    new_std = std + sigma * _std(std, 0) * noise[1]
    return new_std * (x - mean) / std.clamp_min(eps) + new_mean
