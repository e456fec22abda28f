"""A sub-network of CLIP-RPN: a U-Net whose decoder predicts rain masks and attends by them."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.attention import ChannelAttention
from derain.models.layers.cache_blocking import run_in_row_blocks
from derain.models.layers.channel_norm import ChannelNorm
from derain.models.layers.gated_ffn import GatedFFN, simple_gate
from derain.models.layers.mgca import MGCA, MGCAKind
from derain.models.layers.output import float32_output, start_near_zero
from derain.models.shapes import FeatureMap, ImageBatch

Block = Literal["transformer", "naf"]


class TransformerBlock(nn.Module):
    """y = x + Attention(LN(x)), then y + FFN(LN(y)); see `ChannelAttention` and `GatedFFN`.

    Q, K and V come from a 1x1 and a depthwise 3x3 convolution.
    Source: Zamir et al., Restormer, CVPR 2022, section 3. Differs from the paper in that all
    convolutions have a bias.
    """

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels)
        self.attention = ChannelAttention(heads)
        self.out = nn.Conv2d(channels, channels, 1)
        self.ffn_norm = ChannelNorm(channels)
        self.ffn = GatedFFN(channels, expansion)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        qkv = run_in_row_blocks(self._qkv, x, hidden=self.project.out_channels, reach=1)
        q, k, v = qkv.chunk(3, dim=1)
        x = x + self.attention(q, k, v, self.out)
        return self.ffn(x, self.ffn_norm)

    def _qkv(self, x: FeatureMap) -> Float[Tensor, "batch 3*channels height width"]:
        return self.depthwise(self.project(self.norm(x)))


class NAFBlock(nn.Module):
    """y = x + beta A(LN(x)), then y + gamma B(LN(y)), without an activation function.

        A(x) = conv1x1(c * conv1x1(mean of c over the pixels)), c = SG(depthwise3x3(conv1x1(x)))
        B(y) = conv1x1(SG(conv1x1(y))), SG = `simple_gate`

    beta and gamma are learned, one number per channel. Differs from the paper: beta and gamma
    start at 1 (0 in the paper, which trains for long); the eps of LN is 1e-5 (1e-6 there).
    Source: Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, section 3.
    """

    def __init__(self, channels: int, heads: int, expansion: float) -> None:  # noqa: ARG002
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attend = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.ffn_norm = ChannelNorm(channels)
        self.ffn_expand = nn.Conv2d(channels, 2 * channels, 1)
        self.ffn_project = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.ones(channels, 1, 1))
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        y = simple_gate(self.depthwise(self.expand(self.norm(x))))
        y = self.project(y * self.attend(y.mean((2, 3), keepdim=True)))
        x = x + self.beta * y
        return x + self.gamma * self.ffn_project(simple_gate(self.ffn_expand(self.ffn_norm(x))))


BLOCKS: dict[str, type[nn.Module]] = {"transformer": TransformerBlock, "naf": NAFBlock}


class Expert(nn.Module):
    """Rainy image -> clean image and rain masks; images NCHW RGB, float32 in [0, 1].

        encoder   conv3x3, then blocks at H, H/2, H/4, ...; down: conv3x3, pixel unshuffle
        decoder   up: conv3x3, pixel shuffle; conv1x1([up, skip]); blocks; MGCA at the finest
                  len(mgca) scales
        output    x + conv3x3(features)

    Not stated in the paper: everything except MGCA and its masks.

    Raises ValueError for options that do not fit together.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        block: Block,
        expansion: float,
        mgca: Sequence[MGCAKind],
        window: int,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        check_options(widths, depths, heads, block, mgca)

        def blocks(level: int) -> nn.Sequential:
            make = BLOCKS[block]
            width, count = widths[level], depths[level]
            return nn.Sequential(*(make(width, heads[level], expansion) for _ in range(count)))

        def attention(level: int) -> MGCA | None:
            kind = mgca[level] if level < len(mgca) else "none"
            if kind == "none":
                return None
            return MGCA(
                widths[level],
                heads[level],
                kind=kind,
                window=window,
                expansion=expansion,
                bidirectional=bidirectional,
            )

        levels = range(len(widths))
        self.embed = nn.Conv2d(3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(blocks(level) for level in levels)
        self.downs = nn.ModuleList(
            Down(fine, coarse) for fine, coarse in itertools.pairwise(widths)
        )
        self.decoder = nn.ModuleList(
            DecoderLevel(widths[level + 1], widths[level], blocks(level), attention(level))
            for level in reversed(levels[:-1])
        )
        self.out = start_near_zero(nn.Conv2d(widths[0], 3, 3, padding=1))

    def forward(self, x: ImageBatch) -> tuple[Tensor, ...]:
        """Return the image (not clamped), then the logits of rain, finest scale first."""
        y = self.encoder[0](self.embed(x))
        skips = []
        for down, blocks in zip(self.downs, self.encoder[1:], strict=True):
            skips.append(y)
            y = blocks(down(y))
        logits: list[Tensor] = []
        for level in self.decoder:
            y, level_logits = level(y, skips.pop())
            if level_logits is not None:
                logits.insert(0, level_logits)
        return (x + float32_output(self.out, y), *logits)


class Down(nn.Module):
    """Halve height and width: conv3x3 to out_channels / 4, then pixel unshuffle."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels // 4, 3, padding=1)

    def forward(self, x: FeatureMap) -> Float[Tensor, "batch out_channels height/2 width/2"]:
        """NCHW -> NCHW."""
        return F.pixel_unshuffle(self.conv(x), 2)


class DecoderLevel(nn.Module):
    """MGCA(blocks(conv1x1([up(y), skip]))), up = conv3x3 and pixel shuffle."""

    def __init__(
        self, in_channels: int, channels: int, blocks: nn.Module, mgca: MGCA | None
    ) -> None:
        super().__init__()
        self.up = nn.Conv2d(in_channels, 4 * channels, 3, padding=1)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        self.blocks = blocks
        self.mgca = mgca

    def forward(
        self, y: FeatureMap, skip: Float[Tensor, "batch _channels 2*height 2*width"]
    ) -> tuple[Tensor, Tensor | None]:
        """NCHW -> features of the skip's shape, and logits of rain (None without MGCA)."""
        y = F.pixel_shuffle(self.up(y), 2)
        y = self.blocks(self.fuse(torch.cat((y, skip.to(y.dtype)), dim=1)))
        return self.mgca(y) if self.mgca is not None else (y, None)


def check_options(
    widths: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    block: str,
    mgca: Sequence[str],
) -> None:
    """Raise ValueError, naming the options, if options do not fit together."""
    if not 2 <= len(widths) <= 5 or not len(widths) == len(depths) == len(heads):
        raise ValueError(
            "widths, depths and heads must have the same length, two to five levels; "
            f"got {tuple(widths)}, {tuple(depths)}, {tuple(heads)}"
        )
    if any(width % 4 or width % count for width, count in zip(widths, heads, strict=True)):
        raise ValueError(
            "widths must be multiples of 4 and of heads, level by level; "
            f"got {tuple(widths)}, {tuple(heads)}"
        )
    if block not in BLOCKS:
        raise ValueError(f"block must be one of {', '.join(BLOCKS)}, got {block!r}")
    if len(mgca) >= len(widths) or not set(mgca) <= {"window", "channel", "none"}:
        raise ValueError(
            "mgca must list window, channel or none for scales 1, 1/2, ..., fewer than levels; "
            f"got {tuple(mgca)} for {len(widths)} levels"
        )
