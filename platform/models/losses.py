"""What a deraining network is trained to lower: a pixel loss and, if wanted, a perceptual one."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.frozen import FrozenEncoder
from derain.models.schedules import Schedule, Statistics
from derain.models.weights import download_torchvision, load_strictly, read_state_dict

PixelLoss = Literal["l1", "mse", "charbonnier", "power"]
Perceptual = Literal["none", "vgg16", "vgg19", "encoder"]
Arch = Literal["vgg16", "vgg19"]
Picture = Float[Tensor, "batch 3 height width"]


_REMEDY = (
    "give its path as the weights of the perceptual loss (the option encoder needs no weights of "
    "its own; none switches the term off)"
)


def charbonnier(output: Picture, clean: Picture, eps: float = 1e-3) -> Float[Tensor, ""]:
    """mean sqrt(d^2 + eps^2), d = output - clean: L1 with a round tip (Charbonnier et al. 1994)."""
    return torch.sqrt((output - clean).square() + eps**2).mean()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "mse": F.mse_loss,
    "charbonnier": charbonnier,
}


class DerainLoss(nn.Module):
    """pixel(output, clean) + lambda_p * perceptual(output, clean).

    `perceptual` is a module (output, clean) -> scalar, or None for no such term. With lambda_p = 0
    it is not computed either.

    pixel="power" takes its powers of the error from `schedule`, which only it needs.

    `frozen` names the sub-modules that are functions of one picture and never change, as a
    network's does.

    Source: Sun et al., JEIT, doi 10.11999/JEIT251066: L1, lambda_p = 1 (Tables 9 and 10).
    """

    def __init__(
        self,
        pixel: PixelLoss = "l1",
        lambda_p: float = 1.0,
        perceptual: nn.Module | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        if pixel not in (*PIXEL_LOSSES, "power"):
            raise ValueError(f"pixel is one of {', '.join(PIXEL_LOSSES)}, power, got {pixel!r}")
        if (pixel == "power") != (schedule is not None):
            raise ValueError(f"A schedule goes with pixel=power alone, got {pixel!r}, {schedule}")
        if lambda_p < 0:
            raise ValueError(f"lambda_p is not negative, got {lambda_p}")
        self.pixel = pixel
        self.lambda_p = lambda_p
        self.perceptual = perceptual if lambda_p else None
        self.schedule = schedule
        inner = getattr(self.perceptual, "frozen", ())
        self.frozen = tuple(f"perceptual.{name}" for name in inner)

    def forward(
        self,
        output: Picture,
        clean: Picture,
        progress: float | None = None,
        statistics: Statistics | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """NCHW RGB in [0, 1], twice -> the total and its terms (scalars, terms not weighted).

        Terms carry the name of the pixel loss and "perceptual". `progress`, the share of the
        run's steps that is done, and `statistics` are for a schedule.

        Raises ValueError where the schedule needs one that is None.
        """
        output, clean = output.float(), clean.float()
        if self.schedule is None:
            pixel = PIXEL_LOSSES[self.pixel](output, clean)
        else:
            pixel = self.schedule.loss(output, clean, progress, statistics)
        terms: dict[str, Tensor] = {self.pixel: pixel}
        total = terms[self.pixel]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(output, clean)
            total = total + self.lambda_p * terms["perceptual"]
        return total, terms


class VGG(nn.Module):
    """NCHW RGB in [0, 1] -> four feature maps of VGG; nothing in it is trained.

    After relu1_2, relu2_2, relu3_4 and relu4_4 of VGG-19 (relu3_3 and relu4_3 of VGG-16).
    Pictures are normalised as for ImageNet inside.

    `weights`: "imagenet" (torchvision's IMAGENET1K_V1, downloaded), the path of a .safetensors or
    state dict .pt file with torchvision's names (it may end after the last layer used), or
    "random" (always the same ones, for tests; no perceptual meaning).

    Raises FileNotFoundError where weights cannot be had, ValueError where they do not fit.
    """

    mean: Tensor
    std: Tensor

    # positions in torchvision's `features`
    _TAPS = {"vgg16": (3, 8, 15, 22), "vgg19": (3, 8, 17, 26)}  # noqa: RUF012

    def __init__(self, arch: Arch = "vgg19", weights: str = "imagenet") -> None:
        super().__init__()
        if arch not in self._TAPS:
            raise ValueError(f"arch is one of {', '.join(self._TAPS)}, got {arch!r}")
        self.taps = self._TAPS[arch]
        self.features = _vgg_layers(arch, self.taps[-1] + 1)
        _fill_vgg(self.features, arch, weights)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), False)
        self.requires_grad_(False)

    def forward(self, x: Picture) -> list[Tensor]:
        """Four feature maps, shallow ones first, differentiable with respect to `x`."""
        x = (x - self.mean) / self.std
        found = []
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in self.taps:
                found.append(x)
        return found


class VGGFeatures(nn.Module):
    """Mean over four layers of the L1 distance between VGG's features of two pictures: see `VGG`.

    Which network and layers the paper uses is not stated in it. Source of the idea: Johnson et
    al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016.
    """

    frozen = ("vgg",)

    def __init__(self, arch: Arch = "vgg19", weights: str = "imagenet") -> None:
        super().__init__()
        self.vgg = VGG(arch, weights)

    def forward(self, output: Picture, clean: Picture) -> Float[Tensor, ""]:
        """NCHW RGB in [0, 1], twice -> a scalar with a gradient for `output` only."""
        with torch.no_grad():
            wanted = self.vgg(clean)
        return _mean_l1(self.vgg(output), wanted)


class EncoderFeatures(nn.Module):
    """Mean over F1 to F4 of the L1 distance between the encoder's features of two pictures.

    The encoder belongs to the network: it is no sub-module here, so it moves with the network and
    appears in no state dict of the loss.

    Raises ValueError for an encoder that is not frozen: its target would move as it trains.
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        super().__init__()
        if encoder.drifts:
            raise ValueError("A perceptual loss on the encoder needs encoder_bn_mode=frozen")
        self._encoder = (encoder,)  # a tuple hides it from nn.Module

    def forward(self, output: Picture, clean: Picture) -> Float[Tensor, ""]:
        """NCHW RGB in [0, 1], H and W multiples of 16, twice -> a scalar."""
        (encoder,) = self._encoder
        return _mean_l1(encoder.features(output), encoder(clean))


def build_loss(
    pixel: PixelLoss,
    lambda_p: float,
    perceptual: Perceptual,
    weights: str | None,
    network: nn.Module,
    schedule: Schedule | None = None,
) -> DerainLoss:
    """The loss for these options; with lambda_p = 0 no perceptual network is built or downloaded.

    `weights` is for "vgg16" and "vgg19" (None means "imagenet"); `network` lends its `encoder` to
    "encoder"; `schedule` is for pixel="power".

    Raises ValueError for options that do not fit together, and what `VGGFeatures` raises.
    """
    if perceptual not in ("none", "vgg16", "vgg19", "encoder"):
        raise ValueError(f"perceptual is none, vgg16, vgg19 or encoder, got {perceptual!r}")
    if weights is not None and perceptual in ("none", "encoder"):
        raise ValueError(f"perceptual={perceptual!r} takes no weights, got {weights!r}")
    if perceptual == "none" or lambda_p == 0:
        return DerainLoss(pixel, lambda_p, schedule=schedule)
    if perceptual == "encoder":
        return DerainLoss(pixel, lambda_p, EncoderFeatures(_encoder_of(network)), schedule)
    features = VGGFeatures(perceptual, weights or "imagenet")
    return DerainLoss(pixel, lambda_p, features, schedule)


def _encoder_of(network: nn.Module) -> FrozenEncoder:
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, FrozenEncoder):
        raise ValueError(
            f"perceptual='encoder' needs a network with a frozen encoder, {type(network).__name__} "
            "has none; choose vgg16 or vgg19"
        )
    return encoder


def _mean_l1(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    distances = [F.l1_loss(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
    return torch.stack(distances).mean()


def _vgg_layers(arch: Arch, count: int) -> nn.Sequential:
    """The first `count` layers of torchvision's VGG, on the meta device: no values, no memory."""
    import torchvision  # seconds to import

    with torch.device("meta"):
        network = torchvision.models.get_model(arch, weights=None, init_weights=False)
    return network.features[:count]


def _fill_vgg(features: nn.Sequential, arch: Arch, weights: str) -> None:
    if weights == "random":
        features.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for parameter in features.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_uniform_(parameter, nonlinearity="relu", generator=generator)
            else:
                nn.init.zeros_(parameter)
        return
    if weights == "imagenet":
        tensors = download_torchvision(arch, "IMAGENET1K_V1", _REMEDY)
    else:
        tensors = read_state_dict(weights)
    positions = {name.split(".")[0] for name in features.state_dict()}
    prefixed = {k.removeprefix("features."): v for k, v in tensors.items() if "features." in k}
    used = {k: v for k, v in prefixed.items() if k.split(".")[0] in positions}
    load_strictly(features, used, f"{arch} {weights}")
