"""The perceptual and the contrastive term, computed from one pass per image of one network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from derain.models.losses.contrastive import ContrastiveLoss
from derain.models.losses.perceptual import perceptual_loss
from derain.models.shapes import ImageBatch


class FeatureTerms(nn.Module):
    """Up to two loss terms in feature space; the features of an image are computed once for both.

        perceptual   `perceptual_loss` of output and clean image
        contrastive  `ContrastiveLoss`: clean image as positive, rainy image as negative

    `features` maps images to one feature map for each of `layers`. A term whose lambda is 0 is
    left out; `perceptual` and `contrastive` name the layers of each.

    `lambdas` holds the weights of the terms, `frozen` the sub-modules that never change.
    """

    def __init__(
        self,
        features: nn.Module,
        layers: Sequence[str],
        *,
        lambda_p: float = 0.0,
        perceptual: Sequence[str] = (),
        lambda_c: float = 0.0,
        contrastive: Sequence[str] = (),
        contrast: ContrastiveLoss | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.frozen = ("features",) if list(features.parameters()) else ()
        self.lambdas = {"perceptual": lambda_p, "contrastive": lambda_c}
        self._perceptual = [layers.index(name) for name in perceptual]
        self._contrastive = [layers.index(name) for name in contrastive]
        self.contrast = contrast if lambda_c else None

    def forward(
        self, output: ImageBatch, clean: ImageBatch, rain: ImageBatch | None
    ) -> dict[str, Float[Tensor, ""]]:
        """NCHW RGB in [0, 1] -> the terms, unweighted, with a gradient for `output` only.

        Raises ValueError if the contrastive term needs the rainy image `rain`, but it is None.
        """
        output_maps = self.features(output)
        with torch.no_grad():
            clean_maps = self.features(clean)
            rainy_maps = () if self.contrast is None else self.features(_required(rain).float())
        terms = {}
        if self.lambdas["perceptual"]:
            output_layers, clean_layers = (
                [maps[index] for index in self._perceptual] for maps in (output_maps, clean_maps)
            )
            terms["perceptual"] = perceptual_loss(output_layers, clean_layers)
        if self.contrast is not None:
            anchor, positive, negative = (
                [maps[index] for index in self._contrastive]
                for maps in (output_maps, clean_maps, rainy_maps)
            )
            terms["contrastive"] = self.contrast(anchor, positive, [negative])
        return terms


def _required(rain: Tensor | None) -> Tensor:
    if rain is None:
        raise ValueError("The contrastive term needs the rainy image, got None")
    return rain
