"""FCLIP-UNet: a U-Net with a frozen CLIP encoder and a ConvNeXt decoder."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.build import EncoderName, build_encoder
from derain.models.encoders.clip_resnet import BNMode
from derain.models.layers.convnext import BilinearUp, ConvNeXtBlock, UpDWBlock
from derain.models.layers.ldfps import LDFPS, LDFPSKind
from derain.models.layers.output import float32_output, start_near_zero
from derain.models.shapes import ImageBatch, check_image_size

Up = Literal["updw", "bilinear"]
UPS: dict[str, type[nn.Module]] = {"updw": UpDWBlock, "bilinear": BilinearUp}

SKIP_STRIDES = (2, 4, 8, 16)
"""Strides at which the decoder expects F1 to F4, in pixels of the image."""
ADAPTED_CHANNELS = (64, 256, 512, 1024)
"""Channels of F1 to F4 after the adapters of a ViT: a ResNet-50's, so the decoder is the same."""


class FCLIPUNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1], H and W multiples of 16.

        F1..F4      = encoder(x)                      frozen, see `derain.models.encoders`
        F0          = x, normalised with the encoder's mean and standard deviation
        skips       = LDFPS(F1..F4)                   noise, in training only
        skips       = adapters(skips)                 for a ViT only, see `TokenAdapter`
        d           = blocks(conv1x1(F4))             H/16
        d           = blocks(conv1x1([up(d), skip]))  H/8 F3, H/4 F2, H/2 F1, H F0
        output      = conv3x3(d), plus x with output="residual"

    The output is not clamped: a clamp has no gradient outside [0, 1].

    Stated in the paper: a symmetric U-Net, the frozen first four stages of CLIP-RN50, ConvNeXt-T
    blocks and UpDWBlock in series, LDFPS with these sigmas. Not stated in the paper: widths,
    depths (3 blocks per level here), where the skips join, layer scale, and whether the input is
    added; the defaults are a reading of it with 9.78 M trained parameters.
    `docs/explanation/fclip_unet.md` lists what is stated and what is inferred.

    The decoder is the same for the other encoders of Table 6. Not stated in the paper: how it
    connects them. A ViT with patches of 32 px takes images whose sides are multiples of 32.

    Source: Sun et al., "Image Deraining Driven by CLIP Visual Embedding", JEIT,
    doi 10.11999/JEIT251066.

    Raises ValueError for options that do not fit together, and what `build_encoder` raises.
    """

    stride = 16
    """Height and width of an image must be multiples of this; 32 with encoder="clip_vit_b32"."""

    frozen: tuple[str, ...] = ("encoder",)
    """Sub-modules that never change. Empty with encoder_bn_mode="clip_denoising": then the
    BatchNorm statistics of the encoder drift and belong in the checkpoint."""

    def __init__(
        self,
        *,
        encoder: EncoderName = "clip_rn50",
        encoder_weights: str | None = None,
        encoder_layers: Sequence[int] | None = None,
        encoder_width: int | None = None,
        encoder_bn_mode: BNMode = "frozen",
        encoder_seed: int = 0,
        decoder_widths: Sequence[int] = (512, 256, 128, 64, 64),
        decoder_depths: Sequence[int] = (3, 3, 3, 3, 3),
        up: Up = "updw",
        ldfps_sigma: Sequence[float] | None = (0.01, 0.03, 0.06, 0.1),
        ldfps_kind: LDFPSKind = "multiplicative",
        output: Literal["direct", "residual"] = "direct",
        layer_scale: float = 1e-6,
        drop_path: float = 0.0,
    ) -> None:
        """
        encoder, encoder_*: see `build_encoder`; `encoder_seed` only matters with
            encoder_weights="random".
        decoder_widths, decoder_depths: channels and ConvNeXt blocks at H/16, H/8, H/4, H/2, H.
        up: "updw", or "bilinear" for the ablation of Table 8.
        ldfps_sigma, ldfps_kind: see `LDFPS`; strengths for F1..F4 (Table 11), None for no LDFPS.
        output: "direct", or "residual" to add the input; the network then starts near the identity.
        layer_scale: the initial gamma of each ConvNeXt block; 1e-6 is ConvNeXt's own and needs
            many steps, 0.01 to 1 suits short runs.
        drop_path: the drop-path rate of each ConvNeXt block.
        """
        super().__init__()
        _check_options(decoder_widths, decoder_depths, up, ldfps_sigma, output)
        self.encoder = build_encoder(
            encoder, encoder_weights, encoder_layers, encoder_width, encoder_bn_mode, encoder_seed
        )
        self.stride = max(*SKIP_STRIDES, *self.encoder.strides)
        self.frozen = () if self.encoder.drifts else ("encoder",)
        self.ldfps = None if ldfps_sigma is None else LDFPS(ldfps_sigma, ldfps_kind)
        self.adapters = _adapters(self.encoder.channels, self.encoder.strides)
        f1, f2, f3, f4 = self.encoder.channels if self.adapters is None else ADAPTED_CHANNELS
        inputs, skips = (f4, *decoder_widths[:-1]), (0, f3, f2, f1, 3)
        self.levels = nn.ModuleList(
            DecoderLevel(c, skip, width, depth, UPS[up], layer_scale, drop_path)
            for c, skip, width, depth in zip(
                inputs, skips, decoder_widths, decoder_depths, strict=True
            )
        )
        self.out = nn.Conv2d(decoder_widths[-1], 3, 3, padding=1)
        self.residual = output == "residual"
        if self.residual:
            start_near_zero(self.out)

    def forward(self, x: ImageBatch) -> ImageBatch:
        """Rainy -> clean, NCHW RGB, float32 in [0, 1] (the output is not clamped).

        Raises ValueError unless height and width are multiples of `stride`.
        """
        return self.decode(x, self.encode(x))

    def encode(self, x: ImageBatch) -> tuple[Tensor, ...]:
        """F1..F4 without noise and without gradient, NCHW; several decoders can share them.

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_image_size("FCLIPUNet", x, self.stride)
        return self.encoder(x)

    def decode(self, x: ImageBatch, taps: Sequence[Tensor]) -> ImageBatch:
        """The rainy image and its F1..F4 -> the clean image; applies LDFPS in training."""
        skips = taps if self.ldfps is None else self.ldfps(taps)
        if self.adapters is not None:
            skips = [adapt(skip) for adapt, skip in zip(self.adapters, skips, strict=True)]
        f1, f2, f3, f4 = skips
        # Normalised, although the 1x1 convolution that follows could undo it: otherwise an L1 loss
        # stays at the identity for some hundred steps, as rain is weak next to the image's mean.
        f0 = self.encoder.normalise(x)
        y = f4
        for level, skip in zip(self.levels, (None, f3, f2, f1, f0), strict=True):
            y = level(y, skip)
        y = float32_output(self.out, y)
        return x + y if self.residual else y


class TokenAdapter(nn.Module):
    """bilinear(conv1x1(LayerNorm(tokens))): tokens of a ViT -> a skip of the decoder. Trained.

    LayerNorm is over channels, as before each block of the ViT itself, because a few channels of
    its residual stream are far larger than the others. The convolution is computed before the
    interpolation: either order gives the same result, this one with fewer multiply-adds. Not
    stated in the paper: all of this.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.project = nn.Linear(in_channels, out_channels)
        self.scale = scale

    def forward(
        self, tokens: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """NCHW -> NCHW, height and width multiplied by `scale`."""
        y = self.project(self.norm(tokens.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return F.interpolate(y, scale_factor=self.scale, mode="bilinear", align_corners=False)


class DecoderLevel(nn.Module):
    """blocks(conv1x1([up(y), skip])); skip_channels=0 leaves out both `up` and the skip."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        depth: int,
        up: type[nn.Module],
        layer_scale: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.up = up(in_channels, out_channels) if skip_channels else None
        fused = out_channels + skip_channels if skip_channels else in_channels
        self.fuse = nn.Conv2d(fused, out_channels, 1)
        self.blocks = nn.Sequential(
            *(ConvNeXtBlock(out_channels, layer_scale, drop_path) for _ in range(depth))
        )

    def forward(
        self,
        y: Float[Tensor, "batch in_channels height width"],
        skip: Float[Tensor, "batch skip_channels skip_height skip_width"] | None,
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """NCHW -> NCHW; `skip` and the output have twice the height and width of `y`."""
        if self.up is not None and skip is not None:
            y = self.up(y)
            y = torch.cat((y, skip.to(y.dtype)), dim=1)
        return self.blocks(self.fuse(y))


def _adapters(channels: Sequence[int], strides: Sequence[int]) -> nn.ModuleList | None:
    """Adapters for F1 to F4, or None if the encoder's strides are those of the skips."""
    if tuple(strides) == SKIP_STRIDES:
        return None
    return nn.ModuleList(
        TokenAdapter(in_channels, out_channels, stride // skip_stride)
        for in_channels, out_channels, stride, skip_stride in zip(
            channels, ADAPTED_CHANNELS, strides, SKIP_STRIDES, strict=True
        )
    )


def _check_options(
    widths: Sequence[int],
    depths: Sequence[int],
    up: str,
    sigma: Sequence[float] | None,
    output: str,
) -> None:
    if len(widths) != 5 or len(depths) != 5:
        raise ValueError(
            "decoder_widths and decoder_depths must have five numbers each, for H/16 to H; "
            f"got {tuple(widths)} and {tuple(depths)}"
        )
    if up not in UPS:
        raise ValueError(f"up must be one of {', '.join(UPS)}, got {up!r}")
    if sigma is not None and len(sigma) != 4:
        raise ValueError(f"ldfps_sigma must be None or four numbers, F1 to F4; got {tuple(sigma)}")
    if output not in ("direct", "residual"):
        raise ValueError(f"output must be direct or residual, got {output!r}")
