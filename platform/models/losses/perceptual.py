"""The perceptual loss: the distance between the feature maps of two images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FeatureMaps = Sequence[Tensor]
"""The feature maps of a batch of images, one NCHW tensor per layer, shallow ones first."""


def perceptual_loss(output: FeatureMaps, clean: FeatureMaps) -> Float[Tensor, ""]:
    """Mean over the maps i of mean |V_i(output) - V_i(clean)|, V_i the i-th feature map.

    Source: Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
    ECCV 2016. Differs from the paper in the absolute instead of the squared difference.
    """
    return map_distances(output, clean).mean()


def map_distances(one: FeatureMaps, other: FeatureMaps) -> Float[Tensor, " maps"]:
    """Mean absolute difference of each pair of maps, in float32."""
    pairs = zip(one, other, strict=True)
    return torch.stack([F.l1_loss(a.float(), b.float()) for a, b in pairs])
