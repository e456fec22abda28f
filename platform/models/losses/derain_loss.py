"""What a deraining network is trained to lower: a pixel loss, and terms on features."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.frozen import FrozenEncoder
from derain.models.losses.contrastive import PUBLISHED_WEIGHTS, ContrastiveLoss, Ratio
from derain.models.losses.features import EncoderFeatures, VGGFeatures
from derain.models.losses.pixel import PIXEL_LOSSES
from derain.models.losses.schedules import Schedule, Statistics
from derain.models.shapes import ImageBatch

PixelName = Literal["l1", "mse", "charbonnier", "charbonnier_edge", "ssim", "mse_ssim", "power"]
FeatureName = Literal["none", "vgg16", "vgg19", "encoder"]

PERCEPTUAL_LAYERS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    "vgg19": ("relu1_2", "relu2_2", "relu3_4", "relu4_4"),
    "encoder": ("F1", "F2", "F3", "F4"),
}
CONTRASTIVE_LAYERS = {
    "vgg16": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    "vgg19": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    "encoder": ("F1", "F2", "F3", "F4"),
}


class DerainLoss(nn.Module):
    """pixel(output, clean) + lambda_p perceptual + lambda_c contrastive.

    The last two are those of `features`, or there is none; see `FeatureTerms`. pixel="power" takes
    its powers of the error from `schedule`, which only it needs.

    `frozen` names the sub-modules that are functions of one image and never change, as a
    network's does.

    Source: Sun et al., JEIT, doi 10.11999/JEIT251066: L1, lambda_p = 1 (Tables 9 and 10); RDMC,
    arXiv 2305.18092: mse_ssim, lambda_c = 0.1.
    """

    def __init__(
        self,
        pixel: PixelName = "l1",
        schedule: Schedule | None = None,
        features: "FeatureTerms | None" = None,
    ) -> None:
        super().__init__()
        if pixel not in (*PIXEL_LOSSES, "power"):
            raise ValueError(f"pixel is one of {', '.join(PIXEL_LOSSES)}, power, got {pixel!r}")
        if (pixel == "power") != (schedule is not None):
            raise ValueError(f"A schedule goes with pixel=power alone, got {pixel!r}, {schedule}")
        self.pixel = pixel
        self.schedule = schedule
        self.features = features
        inner = getattr(features, "frozen", ())
        self.frozen = tuple(f"features.{name}" for name in inner)

    def forward(
        self,
        output: ImageBatch,
        clean: ImageBatch,
        *,
        rain: ImageBatch | None = None,
        progress: float | None = None,
        statistics: Statistics | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """NCHW RGB in [0, 1] -> the total and its terms (scalars, terms not weighted).

        Terms carry the name of the pixel loss, "perceptual" and "contrastive". The rainy image is
        for the latter; `progress`, the share of the run's steps that is done, and `statistics` are
        for a schedule.

        Raises ValueError where something is needed that is None.
        """
        output, clean = output.float(), clean.float()
        if self.schedule is None:
            total = PIXEL_LOSSES[self.pixel](output, clean)
        else:
            total = self.schedule.loss(output, clean, progress, statistics)
        terms: dict[str, Tensor] = {self.pixel: total}
        if self.features is not None:
            found = self.features(output, clean, rain)
            total = total + sum(self.features.lambdas[name] * term for name, term in found.items())
            terms |= found
        return total, terms


class FeatureTerms(nn.Module):
    """Up to two terms in the space of features; each image is looked at once for both.

        perceptual   mean over its layers of mean |V(output) - V(clean)|
        contrastive  `ContrastiveLoss` with the clean image as positive, the rainy as negative

    `features` maps an image to one map for each of `layers`. A term is there where its lambda is
    not 0; `perceptual` and `contrastive` name the layers of each.

    Which layers FCLIP-UNet's perceptual term takes is not stated in the paper. Source of the idea:
    Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016.
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
        """NCHW RGB in [0, 1] -> the terms, with a gradient for `output` only.

        Raises ValueError where the contrastive term misses the rainy image.
        """
        found = self.features(output)
        terms = {}
        with torch.no_grad():
            wanted = self.features(clean)
            avoided = () if self.contrast is None else self.features(_given(rain).float())
        if self.lambdas["perceptual"]:
            distances = [
                F.l1_loss(found[at].float(), wanted[at].float()) for at in self._perceptual
            ]
            terms["perceptual"] = torch.stack(distances).mean()
        if self.contrast is not None:
            maps = ([maps[at] for at in self._contrastive] for maps in (found, wanted, avoided))
            anchor, positive, negative = maps
            terms["contrastive"] = self.contrast(anchor, positive, [negative])
        return terms


def build_loss(
    network: nn.Module,
    *,
    pixel: PixelName = "l1",
    schedule: Schedule | None = None,
    lambda_p: float = 0.0,
    perceptual: FeatureName = "none",
    lambda_c: float = 0.0,
    contrastive: FeatureName = "none",
    contrastive_weights: Sequence[float] = PUBLISHED_WEIGHTS,
    contrastive_ratio: Ratio = "per_layer",
    contrastive_floor: float = 0.1,
    vgg_weights: str | None = None,
) -> DerainLoss:
    """The loss for these options; a term whose lambda is 0 builds and downloads nothing.

    `vgg_weights` is for "vgg16" and "vgg19" (None means "imagenet"); `network` lends its `encoder`
    to "encoder"; `schedule` is for pixel="power"; `contrastive_weights` has one number a layer, and
    fewer numbers take fewer layers, shallow ones first.

    Raises ValueError for options that do not fit together, and what `VGGFeatures` raises.
    """
    for name, value in (("lambda_p", lambda_p), ("lambda_c", lambda_c)):
        if value < 0:
            raise ValueError(f"{name} is not negative, got {value}")
    for name, choice in (("perceptual", perceptual), ("contrastive", contrastive)):
        if choice != "none" and choice not in PERCEPTUAL_LAYERS:
            raise ValueError(f"{name} is none, vgg16, vgg19 or encoder, got {choice!r}")
    lambda_p, lambda_c = lambda_p * (perceptual != "none"), lambda_c * (contrastive != "none")
    if vgg_weights is not None and not {perceptual, contrastive} & {"vgg16", "vgg19"}:
        raise ValueError(f"Neither term is of a VGG and takes weights, got {vgg_weights!r}")
    sources = {name for name, on in ((perceptual, lambda_p), (contrastive, lambda_c)) if on}
    if not sources:
        return DerainLoss(pixel, schedule)
    if len(sources) > 1:
        raise ValueError(f"One network gives the features of both terms, got {sorted(sources)}")
    (source,) = sources
    seen = PERCEPTUAL_LAYERS[source] if lambda_p else ()
    contrasted = _contrasted(source, contrastive_weights) if lambda_c else ()
    layers = tuple(sorted({*seen, *contrasted}))
    terms = FeatureTerms(
        _features(source, layers, vgg_weights, network),
        layers,
        lambda_p=lambda_p,
        perceptual=seen,
        lambda_c=lambda_c,
        contrastive=contrasted,
        contrast=ContrastiveLoss(
            contrastive_weights, ratio=contrastive_ratio, floor=contrastive_floor
        ),
    )
    return DerainLoss(pixel, schedule, terms)


def _contrasted(source: str, weights: Sequence[float]) -> tuple[str, ...]:
    layers = CONTRASTIVE_LAYERS[source]
    if not 0 < len(weights) <= len(layers):
        raise ValueError(
            f"contrastive_weights has one number a layer, {source} has {', '.join(layers)}; "
            f"got {len(weights)}"
        )
    return layers[: len(weights)]


def _features(
    source: str, layers: Sequence[str], weights: str | None, network: nn.Module
) -> nn.Module:
    if source != "encoder":
        return VGGFeatures(source, layers, weights or "imagenet")
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, FrozenEncoder):
        raise ValueError(
            f"perceptual='encoder' needs a network with a frozen encoder, "
            f"{type(network).__name__} has none; choose vgg16 or vgg19"
        )
    return EncoderFeatures(encoder, layers)


def _given(rain: Tensor | None) -> Tensor:
    if rain is None:
        raise ValueError("The contrastive term needs the rainy image, got None")
    return rain
