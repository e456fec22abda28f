"""FCLIP-UNet: a frozen encoder and a ConvNeXt decoder in the shape of a U-Net."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.by_name import EncoderName, build_encoder
from derain.models.encoders.clip import BNMode
from derain.models.layers.convnext import BilinearUp, ConvNeXtBlock, UpDWBlock
from derain.models.layers.ldfps import LDFPS, LDFPSKind
from derain.models.layers.sizes import check_sides

Up = Literal["updw", "bilinear"]
UPS: dict[str, type[nn.Module]] = {"updw": UpDWBlock, "bilinear": BilinearUp}

SKIP_STRIDES = (2, 4, 8, 16)
"""Where the decoder wants F1 to F4, in pixels of the image."""
ADAPTED_CHANNELS = (64, 256, 512, 1024)
"""Of F1 to F4 from a ViT, as a ResNet-50 has them: so the decoder is the same."""


class FCLIPUNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1], H and W multiples of 16.

        taps F1..F4 = encoder(x)                      frozen, see `encoders.py`
        F0          = x with the encoder's mean and std
        skips       = LDFPS(F1..F4)                   noise, in training only
        skips       = adapters(skips)                 for a ViT only, see `TokenAdapter`
        d           = blocks(conv1x1(F4))             H/16
        d           = blocks(conv1x1([up(d), skip]))  H/8 F3, H/4 F2, H/2 F1, H F0
        output      = conv3x3(d), plus x where output="residual"

    The output is not clamped: a clamp has no gradient where the network is wrong.

    Stated in the paper: a symmetric U-Net, the frozen first four stages of CLIP-RN50, ConvNeXt-T
    blocks and UpDWBlock in series, LDFPS with these sigmas. Not stated in the paper: widths,
    depths (3 a level here), where the skips join, layer scale, and whether the input is added;
    the defaults are a reading of it with 9.78 M trained parameters. `docs/fclip_unet.md` sets
    what is stated beside what is inferred.

    With the other encoders of Table 6 the decoder stays as it is. How the paper fits them in is not
    stated in it; a ViT with patches of 32 px needs images in multiples of 32.

    Source: Sun et al., "Image Deraining Driven by CLIP Visual Embedding", JEIT,
    doi 10.11999/JEIT251066.

    Raises ValueError for options that do not fit together, and what `build_encoder` raises.
    """

    stride = 16
    """Height and width of an image must be multiples of this; 32 with encoder="clip_vit_b32"."""

    frozen: tuple[str, ...] = ("encoder",)
    """Sub-modules that never change. Empty with encoder_bn_mode="clip_denoising", where the
    BatchNorm statistics of the encoder drift and belong into the checkpoint."""

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
        encoder, encoder_*: see `build_encoder`; `encoder_seed` counts for encoder_weights="random"
            only.
        decoder_widths, decoder_depths: channels and ConvNeXt blocks at H/16, H/8, H/4, H/2, H.
        up: "updw", or "bilinear" for the ablation of Table 8.
        ldfps_sigma: strengths for F1..F4 (Table 11), or None to leave LDFPS out.
        output: "direct", or "residual" to add the input; it then starts near the identity.
        layer_scale: where gamma of every ConvNeXt block starts; 1e-6 is ConvNeXt's own and needs
            many steps, 0.01 to 1 suits short runs.
        drop_path: the rate of every ConvNeXt block.
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
            _shrink(self.out)

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Rainy -> clean, NCHW RGB in [0, 1] (the output not clamped).

        Raises ValueError unless height and width are multiples of `stride`.
        """
        return self.decode(x, self.encode(x))

    def encode(self, x: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """F1..F4 without noise and without a graph; several decoders can share them."""
        check_sides("FCLIPUNet", x, self.stride)
        return self.encoder(x)

    def decode(
        self, x: Float[Tensor, "batch 3 height width"], taps: Sequence[Tensor]
    ) -> Float[Tensor, "batch 3 height width"]:
        """From the rainy image and its F1..F4 to the clean one; LDFPS happens here."""
        skips = taps if self.ldfps is None else self.ldfps(taps)
        if self.adapters is not None:
            skips = [adapt(skip) for adapt, skip in zip(self.adapters, skips, strict=True)]
        f1, f2, f3, f4 = skips
        # The 1x1 convolution behind it could undo this; without it an L1 loss stays at the identity
        # for some hundred steps, because rain is weak beside the mean of an image.
        f0 = self.encoder.normalise(x)
        y = f4
        for level, skip in zip(self.levels, (None, f3, f2, f1, f0), strict=True):
            y = level(y, skip)
        # Under autocast too the image itself is float32: bfloat16 near 1 steps by 1/256.
        with torch.autocast(x.device.type, enabled=False):
            y = self.out(y.float())
        return x + y if self.residual else y


class TokenAdapter(nn.Module):
    """bilinear(conv1x1(LayerNorm(tokens))): tokens of a ViT -> a skip of the decoder, trained.

    LayerNorm is over channels, as in front of every block of the ViT itself, whose residual stream
    has single channels far larger than the others. The convolution goes before the interpolation:
    both orders give the same result, this one less work. Not stated in the paper.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.project = nn.Linear(in_channels, out_channels)
        self.scale = scale

    def forward(
        self, tokens: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """NCHW -> NCHW, `scale` times as high and wide."""
        y = self.project(self.norm(tokens.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return F.interpolate(y, scale_factor=self.scale, mode="bilinear", align_corners=False)


class DecoderLevel(nn.Module):
    """blocks(conv1x1([up(y), skip])); with skip_channels=0 there is neither `up` nor skip."""

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
        """NCHW; `skip` is twice as high and wide as `y`, and so is what comes back."""
        if self.up is not None and skip is not None:
            y = self.up(y)
            y = torch.cat((y, skip.to(y.dtype)), dim=1)
        return self.blocks(self.fuse(y))


def _adapters(channels: Sequence[int], strides: Sequence[int]) -> nn.ModuleList | None:
    """One for each of F1 to F4 where the encoder's maps do not have the sizes of the skips."""
    if tuple(strides) == SKIP_STRIDES:
        return None
    return nn.ModuleList(
        TokenAdapter(found, wanted, there // here)
        for found, wanted, there, here in zip(
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
            "decoder_widths and decoder_depths have one number a level, H/16 to H, five in all; "
            f"got {tuple(widths)} and {tuple(depths)}"
        )
    if up not in UPS:
        raise ValueError(f"up is one of {', '.join(UPS)}, got {up!r}")
    if sigma is not None and len(sigma) != 4:
        raise ValueError(f"ldfps_sigma has four numbers, F1 to F4, or is None; got {tuple(sigma)}")
    if output not in ("direct", "residual"):
        raise ValueError(f"output is direct or residual, got {output!r}")


def _shrink(conv: nn.Conv2d) -> None:
    """A hundredth of the usual weights: near the identity, and every layer still gets gradient."""
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.mul_(0.01)
