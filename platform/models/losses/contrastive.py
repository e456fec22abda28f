"""The contrastive loss: closer to the clean image than to the rainy image, in feature space."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from derain.models.losses.perceptual import FeatureMaps, map_distances

Ratio = Literal["per_layer", "of_sums"]

PUBLISHED_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of the five feature maps in AECR-Net and RDMC, shallow ones first."""
EPS = 1e-7


class ContrastiveLoss(nn.Module):
    """Distance to the positive divided by the distance to the negatives, in feature space.

    With a the anchor (the output of the network), p the positive (the clean image), n_1..n_K the
    negatives (the rainy image, and optionally others), V_i the i-th feature map and
    d_i(x, y) = mean |V_i(x) - V_i(y)|:

        N_i        = max(mean_k d_i(a, n_k), floor * mean_k d_i(p, n_k)) + 1e-7
        per_layer    sum_i w_i d_i(a, p) / N_i
        of_sums      sum_i w_i d_i(a, p) / sum_i w_i N_i

    It is 0 at a = p. It is independent of the network that computes the maps; `FeatureTerms`
    computes them, with a gradient for the anchor only.

    Source: RDMC, arXiv 2305.18092 (positive and negative as here, one negative); form and weights
    from Wu et al., "Contrastive Learning for Compact Single Image Dehazing" (AECR-Net), CVPR 2021:
    per_layer over relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of VGG-19.

    Differs from the paper in `floor`: a network that adds to its input starts at a = n, where the
    published ratio is practically infinite. The floor is relative because the scale of features
    varies by orders of magnitude between networks; floor=0 is the published ratio. Differs from
    DRNet's code, which takes the ratio of_sums over other layers and passes the anchor in place of
    the positive, whose features it detaches, so that its term has no gradient.

    Raises ValueError for an unknown ratio, a negative floor, or weights that are not positive.
    """

    def __init__(
        self,
        weights: Sequence[float] = PUBLISHED_WEIGHTS,
        *,
        ratio: Ratio = "per_layer",
        floor: float = 0.1,
    ) -> None:
        """weights: w_i, one per feature map."""
        super().__init__()
        if ratio not in ("per_layer", "of_sums"):
            raise ValueError(f"ratio must be per_layer or of_sums, got {ratio!r}")
        if not weights or min(weights) <= 0:
            raise ValueError(f"weights must be positive, one per feature map, got {tuple(weights)}")
        if floor < 0:
            raise ValueError(f"floor must not be negative, got {floor}")
        self.weights = tuple(weights)
        self.ratio = ratio
        self.floor = floor

    def forward(
        self, anchor: FeatureMaps, positive: FeatureMaps, negatives: Sequence[FeatureMaps]
    ) -> Float[Tensor, ""]:
        """The maps of anchor, positive and negatives, in the same order and shapes -> a scalar.

        Raises ValueError without negatives, or if the number of maps is not that of the weights.
        """
        if not negatives:
            raise ValueError("ContrastiveLoss expects at least one negative image, got none")
        if len(anchor) != len(self.weights):
            raise ValueError(
                f"ContrastiveLoss has {len(self.weights)} weights for {len(anchor)} maps. Pass "
                "one weight per map."
            )
        attract = map_distances(anchor, positive)
        repel = torch.stack([map_distances(anchor, maps) for maps in negatives]).mean(0)
        apart = torch.stack([map_distances(positive, maps) for maps in negatives]).mean(0)
        repel = torch.maximum(repel, self.floor * apart) + EPS
        weights = attract.new_tensor(self.weights)
        if self.ratio == "of_sums":
            return (weights * attract).sum() / (weights * repel).sum()
        return (weights * attract / repel).sum()
