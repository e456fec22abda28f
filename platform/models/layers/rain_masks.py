"""Rain masks: the layer that predicts them, their ground truth, and the loss between the two."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.shapes import ImageBatch

RainMask = Float[Tensor, "batch 1 height width"]
"""A number per pixel, NCHW: the probability of rain in [0, 1], or its logit."""


class MaskHead(nn.Sequential):
    """Features -> logits of rain, NCHW, one channel: conv3x3, GELU, conv3x3.

    Not stated in the paper (CLIP-RPN), which says only that precise masks are predicted at several
    scales.
    """

    def __init__(self, channels: int) -> None:
        inner = max(1, channels // 2)
        super().__init__(
            nn.Conv2d(channels, inner, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(inner, 1, 3, padding=1),
        )


def rain_mask(rainy: ImageBatch, clean: ImageBatch, threshold: float) -> RainMask:
    """The ground truth: 1 where any channel differs by more than `threshold` (of 1), else 0."""
    return ((rainy.float() - clean.float()).abs().amax(1, keepdim=True) > threshold).float()


def mask_loss(
    logits: Sequence[Float[Tensor, "batch 1 _height _width"]],
    rainy: ImageBatch,
    clean: ImageBatch,
    threshold: float,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the predicted masks, summed over scales, averaged over the batch.

        G_1 = 1[max_c |rainy - clean| > threshold], G_s = max-pool of G_1 over s x s pixels
        L = sum_s mean -(w G_s log M_s + (1 - G_s) log(1 - M_s)), M_s = sigmoid(logits)
        w = pixels without rain / pixels with rain, of that image and scale, clamped to [1, 10]

    w is computed per image, not per batch, so the loss does not depend on which images share a
    process. For an image without rain, w is 10 and has no effect. Not stated in the paper
    (CLIP-RPN): all of this.
    """
    target = rain_mask(rainy, clean, threshold)
    total = target.new_zeros(())
    for logit in logits:
        scale = target.shape[-1] // logit.shape[-1]
        total = total + _weighted_bce(logit.float(), F.max_pool2d(target, scale))
    return total


def _weighted_bce(logit: Tensor, target: Tensor) -> Tensor:
    rain = target.sum((1, 2, 3), keepdim=True)
    weight = ((target[0].numel() - rain) / rain.clamp_min(1.0)).clamp(1.0, 10.0)
    return F.binary_cross_entropy_with_logits(logit, target, pos_weight=weight)
