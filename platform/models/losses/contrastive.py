"""The contrastive prior: nearer to the clean image than to the rainy one, as features see it."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Sequence[Tensor]
"""The feature maps of a batch of images, NCHW, shallow ones first."""

Ratio = Literal["per_layer", "of_sums"]

PUBLISHED_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
EPS = 1e-7


class ContrastiveLoss(nn.Module):
    """Distance to the positive over distance to the negatives, in feature space.

    With a the anchor (what the network returns), p the positive (the clean image), n_1..n_K the
    negatives (the rainy image, and others if wanted), V_i the i-th feature map and
    d_i(x, y) = mean |V_i(x) - V_i(y)|:

        N_i        = max(mean_k d_i(a, n_k), floor * mean_k d_i(p, n_k)) + 1e-7
        per_layer    sum_i w_i d_i(a, p) / N_i
        of_sums      sum_i w_i d_i(a, p) / sum_i w_i N_i

    It is 0 at a = p. It knows nothing of the network that makes the maps; `losses.FeatureTerms`
    makes them, with a gradient for the anchor only.

    `floor` is ours: a network that adds to its input starts at a = n, where the published ratio
    is as good as infinite. It is relative, because features of different networks differ in scale
    by orders of magnitude; floor=0 is the published ratio.

    Source: RDMC, arXiv 2305.18092 (positive and negative as here, one negative); form and weights
    from Wu et al., "Contrastive Learning for Compact Single Image Dehazing" (AECR-Net), CVPR 2021:
    per_layer over relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of VGG-19. The code of DRNet
    takes the ratio of_sums over other layers and passes the anchor in place of the positive, whose
    features it detaches, so that its term has no gradient; that is not repeated here.

    Raises ValueError for an unknown ratio, a negative floor, and weights that are not positive.
    """

    def __init__(
        self,
        weights: Sequence[float] = PUBLISHED_WEIGHTS,
        *,
        ratio: Ratio = "per_layer",
        floor: float = 0.1,
    ) -> None:
        """weights: one a feature map."""
        super().__init__()
        if ratio not in ("per_layer", "of_sums"):
            raise ValueError(f"ratio is per_layer or of_sums, got {ratio!r}")
        if not weights or min(weights) <= 0:
            raise ValueError(f"weights are positive, one a feature map, got {tuple(weights)}")
        if floor < 0:
            raise ValueError(f"floor is not negative, got {floor}")
        self.weights = tuple(weights)
        self.ratio = ratio
        self.floor = floor

    def forward(self, anchor: Maps, positive: Maps, negatives: Sequence[Maps]) -> Float[Tensor, ""]:
        """The maps of the three, in one order and of one shape each -> a scalar.

        Raises ValueError without negatives, and where there is not one weight a map.
        """
        if not negatives:
            raise ValueError("ContrastiveLoss expects at least one negative image, got none")
        if len(anchor) != len(self.weights):
            raise ValueError(
                f"ContrastiveLoss has {len(self.weights)} weights for {len(anchor)} maps; give "
                "one weight a map"
            )
        attract = _distances(anchor, positive)
        repel = torch.stack([_distances(anchor, maps) for maps in negatives]).mean(0)
        apart = torch.stack([_distances(positive, maps) for maps in negatives]).mean(0)
        repel = torch.maximum(repel, self.floor * apart) + EPS
        weights = attract.new_tensor(self.weights)
        if self.ratio == "of_sums":
            return (weights * attract).sum() / (weights * repel).sum()
        return (weights * attract / repel).sum()


def _distances(one: Maps, other: Maps) -> Float[Tensor, " maps"]:
    """Mean absolute difference, map by map, in float32."""
    pairs = zip(one, other, strict=True)
    return torch.stack([F.l1_loss(a.float(), b.float()) for a, b in pairs])
