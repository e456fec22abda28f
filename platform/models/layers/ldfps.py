"""LDFPS: noise on the skip features while FCLIP-UNet trains."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

LDFPSKind = Literal["multiplicative", "additive", "statistics"]


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
