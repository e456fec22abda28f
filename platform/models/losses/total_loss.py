"""The total loss of a deraining network: a pixel loss plus weighted terms in feature space."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from derain.models.encoders.frozen_encoder import FrozenEncoder
from derain.models.losses.contrastive import PUBLISHED_WEIGHTS, ContrastiveLoss, Ratio
from derain.models.losses.feature_terms import FeatureTerms
from derain.models.losses.features import EncoderFeatures, VGGFeatures
from derain.models.losses.loss_schedule import LossSchedule, OwnSchedule, Statistics
from derain.models.losses.pixel import PIXEL_LOSSES
from derain.models.shapes import ImageBatch

PixelName = Literal[
    "l1", "mse", "charbonnier", "charbonnier_edge", "ssim", "mse_ssim", "power", "none"
]
FeatureName = Literal["none", "vgg16", "vgg19", "encoder"]
Term = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A term of the user's: output, clean and rainy images -> a scalar."""

PERCEPTUAL_LAYERS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    "vgg19": ("relu1_2", "relu2_2", "relu3_4", "relu4_4"),
    "encoder": ("F1", "F2", "F3", "F4"),
}
"""Not stated in the paper (FCLIP-UNet): which layers its perceptual term takes."""
CONTRASTIVE_LAYERS = {
    "vgg16": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    "vgg19": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    "encoder": ("F1", "F2", "F3", "F4"),
}


class TotalLoss(nn.Module):
    """pixel(output, clean) + lambda_p perceptual + lambda_c contrastive + terms of the user's.

    perceptual and contrastive are the terms of `features`; None leaves them out. pixel="power"
    takes its powers of the error from `schedule`, which is required for it and not allowed
    otherwise. `own` has the weights and the terms of the user's, by name; nothing of them is
    trained. pixel="none" leaves the pixel loss to them.

    `frozen` names the sub-modules that are functions of one image and never change, as for
    networks.

    Source: Sun et al., JEIT, doi 10.11999/JEIT251066: L1, lambda_p = 1 (Tables 9 and 10); RDMC,
    arXiv 2305.18092: mse_ssim, lambda_c = 0.1.
    """

    def __init__(
        self,
        pixel: PixelName = "l1",
        schedule: LossSchedule | OwnSchedule | None = None,
        features: FeatureTerms | None = None,
        own: Mapping[str, tuple[float, Term]] | None = None,
    ) -> None:
        super().__init__()
        if pixel not in (*PIXEL_LOSSES, "power", "none"):
            raise ValueError(
                f"pixel must be one of {', '.join(PIXEL_LOSSES)}, power, none, got {pixel!r}"
            )
        if (pixel == "power") != (schedule is not None):
            raise ValueError(
                "pixel=power requires a schedule, and no other pixel loss takes one; "
                f"got {pixel!r}, {schedule}"
            )
        self.pixel = pixel
        self.schedule = schedule
        self.features = features
        self.own = dict(own or {})
        modules = [term for _, term in self.own.values() if isinstance(term, nn.Module)]
        self._own_modules = nn.ModuleList(modules).requires_grad_(False)  # moved to the device
        frozen = () if features is None else features.frozen
        self.frozen = tuple(f"features.{name}" for name in frozen)

    def forward(
        self,
        output: ImageBatch,
        clean: ImageBatch,
        *,
        rain: ImageBatch | None = None,
        progress: float | None = None,
        statistics: Statistics | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """NCHW RGB in [0, 1] -> the total and its unweighted terms, all scalars.

        The keys of the terms are the name of the pixel loss, "perceptual", "contrastive" and the
        names of the user's. `rain`, the rainy image, is for the contrastive term and the user's;
        `progress`, the completed share of
        the run's steps, and `statistics` are for the schedule.

        Computed in float32 also under autocast: near the end of a training the differences between
        output and clean image are smaller than bfloat16's steps.

        Raises ValueError if an argument that a term needs is None.
        """
        with torch.autocast(output.device.type, enabled=False):
            total, terms = output.new_zeros((), dtype=torch.float32), dict[str, Tensor]()
            if self.pixel != "none":
                total = self._pixel_loss(output.float(), clean.float(), progress, statistics)
                terms[self.pixel] = total
            if self.features is not None:
                extra = self.features(output.float(), clean.float(), rain)
                weights = self.features.lambdas
                total = total + sum(weights[name] * term for name, term in extra.items())
                terms |= extra
            for name, (weight, term) in self.own.items():
                if rain is None:
                    raise ValueError(f"The loss term {name} needs the rainy image, got None")
                terms[name] = term(output.float(), clean.float(), rain.float())
                total = total + weight * terms[name]
        return total, terms

    def _pixel_loss(
        self,
        output: ImageBatch,
        clean: ImageBatch,
        progress: float | None,
        statistics: Statistics | None,
    ) -> Tensor:
        if self.schedule is None:
            return PIXEL_LOSSES[self.pixel](output, clean)
        return self.schedule.loss(output, clean, progress, statistics)


def build_loss(
    network: nn.Module,
    *,
    pixel: PixelName = "l1",
    schedule: LossSchedule | OwnSchedule | None = None,
    lambda_p: float = 0.0,
    perceptual: FeatureName = "none",
    lambda_c: float = 0.0,
    contrastive: FeatureName = "none",
    contrastive_weights: Sequence[float] = PUBLISHED_WEIGHTS,
    contrastive_ratio: Ratio = "per_layer",
    contrastive_floor: float = 0.1,
    vgg_weights: str | None = None,
    own: Mapping[str, tuple[float, Term]] | None = None,
) -> TotalLoss:
    """Build the loss for these options; a term whose lambda is 0 builds and downloads nothing.

    network: provides its `encoder` for "encoder".
    schedule: for pixel="power".
    contrastive_weights: one number per layer; fewer numbers take fewer layers, shallow ones first.
    vgg_weights: for "vgg16" and "vgg19", see `VGGFeatures`; None means "imagenet".
    own: weights and terms of the user's, by name.

    Raises ValueError for options that do not fit together, and what `VGGFeatures` raises.
    """
    _check_options(lambda_p, perceptual, lambda_c, contrastive, vgg_weights)
    lambda_p = 0.0 if perceptual == "none" else lambda_p
    lambda_c = 0.0 if contrastive == "none" else lambda_c
    source = _feature_source(
        perceptual if lambda_p else "none", contrastive if lambda_c else "none"
    )
    if source == "none":
        return TotalLoss(pixel, schedule, own=own)
    perceptual_layers = PERCEPTUAL_LAYERS[source] if lambda_p else ()
    contrastive_layers = _contrastive_layers(source, contrastive_weights) if lambda_c else ()
    layers = tuple(sorted({*perceptual_layers, *contrastive_layers}))
    terms = FeatureTerms(
        _build_features(source, layers, vgg_weights, network),
        layers,
        lambda_p=lambda_p,
        perceptual=perceptual_layers,
        lambda_c=lambda_c,
        contrastive=contrastive_layers,
        contrast=ContrastiveLoss(
            contrastive_weights, ratio=contrastive_ratio, floor=contrastive_floor
        ),
    )
    return TotalLoss(pixel, schedule, terms, own)


def _check_options(
    lambda_p: float, perceptual: str, lambda_c: float, contrastive: str, vgg_weights: str | None
) -> None:
    for name, value in (("lambda_p", lambda_p), ("lambda_c", lambda_c)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    for name, choice in (("perceptual", perceptual), ("contrastive", contrastive)):
        if choice != "none" and choice not in PERCEPTUAL_LAYERS:
            raise ValueError(f"{name} must be none, vgg16, vgg19 or encoder, got {choice!r}")
    if vgg_weights is not None and not {perceptual, contrastive} & {"vgg16", "vgg19"}:
        raise ValueError(
            "VGG weights require perceptual or contrastive to be vgg16 or vgg19; "
            f"got the weights {vgg_weights!r}"
        )


def _feature_source(perceptual: FeatureName, contrastive: FeatureName) -> FeatureName:
    """The network that computes the features of both terms, or "none"."""
    if "none" not in (perceptual, contrastive) and perceptual != contrastive:
        raise ValueError(
            "perceptual and contrastive must use the same network; "
            f"got {perceptual!r} and {contrastive!r}"
        )
    return contrastive if perceptual == "none" else perceptual


def _contrastive_layers(source: str, weights: Sequence[float]) -> tuple[str, ...]:
    layers = CONTRASTIVE_LAYERS[source]
    if not 0 < len(weights) <= len(layers):
        raise ValueError(
            f"contrastive_weights must have one number per layer, and {source} has the layers "
            f"{', '.join(layers)}; got {len(weights)} numbers"
        )
    return layers[: len(weights)]


def _build_features(
    source: str, layers: Sequence[str], vgg_weights: str | None, network: nn.Module
) -> nn.Module:
    if source != "encoder":
        return VGGFeatures(source, layers, vgg_weights or "imagenet")
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, FrozenEncoder):
        raise ValueError(
            "perceptual=encoder and contrastive=encoder need a network with a frozen encoder, and "
            f"{type(network).__name__} has none. Choose vgg16 or vgg19."
        )
    return EncoderFeatures(encoder, layers)
