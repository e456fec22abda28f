"""One sub-network of CLIP-RPN: a U-Net whose decoder predicts rain masks and attends by them."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.mgca import MGCA, ChannelAttention, ChannelNorm, GatedFFN, MGCAKind
from derain.models.layers.slabs import in_slabs

Block = Literal["transformer", "naf"]
Features = Float[Tensor, "batch channels height width"]


class TransformerBlock(nn.Module):
    """y = x + Attention(LN(x)), y + FFN(LN(y)); attention between channels, linear in pixels.

    Q, K and V come from a 1x1 and a depthwise 3x3 convolution.
    Source: Zamir et al., Restormer, CVPR 2022.
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

    def forward(self, x: Features) -> Features:
        """NCHW -> NCHW."""
        joined = in_slabs(self._projected, x, hidden=self.project.out_channels, reach=1)
        q, k, v = joined.chunk(3, dim=1)
        x = x + self.attention(q, k, v, self.out)
        return self.ffn(x, self.ffn_norm)

    def _projected(self, x: Features) -> Float[Tensor, "batch 3*channels height width"]:
        return self.depthwise(self.project(self.norm(x)))


class NAFBlock(nn.Module):
    """y = x + beta A(LN(x)), y + gamma B(LN(y)), without an activation function.

        A  conv1x1(c mean-over-pixels-then-conv1x1(c)), c = G(depthwise3x3(conv1x1))
        B  conv1x1(G(conv1x1)), G(a, b) = a b, halves of the channels

    beta and gamma are learnt, one number a channel, and start at 1 (at 0 in the source, which
    trains for long); the eps of LN is 1e-5 (1e-6 there).
    Source: Chen et al., "Simple Baselines for Image Restoration", ECCV 2022.
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

    def forward(self, x: Features) -> Features:
        """NCHW -> NCHW."""
        y = _gate(self.depthwise(self.expand(self.norm(x))))
        y = self.project(y * self.attend(y.mean((2, 3), keepdim=True)))
        x = x + self.beta * y
        return x + self.gamma * self.ffn_project(_gate(self.ffn_expand(self.ffn_norm(x))))


BLOCKS: dict[str, type[nn.Module]] = {"transformer": TransformerBlock, "naf": NAFBlock}


class Expert(nn.Module):
    """Rainy image -> clean image and rain masks, NCHW RGB in [0, 1].

        encoder   conv3x3, then at H, H/2, H/4, ... blocks; down: conv3x3, pixel unshuffle
        decoder   up: conv3x3, pixel shuffle; conv1x1([up, skip]); blocks; MGCA at the finest
                  len(mgca) scales
        output    x + conv3x3

    Not stated in the paper: all of it but MGCA and its masks.

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
        self.out = nn.Conv2d(widths[0], 3, 3, padding=1)
        with torch.no_grad():  # near the identity, and every layer still gets gradient
            for parameter in self.out.parameters():
                parameter.mul_(0.01)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """The image (not clamped), then the logits of rain, the finest scale first."""
        y = self.encoder[0](self.embed(x))
        skips = []
        for down, blocks in zip(self.downs, self.encoder[1:], strict=True):
            skips.append(y)
            y = blocks(down(y))
        logits: list[Tensor] = []
        for level in self.decoder:
            y, found = level(y, skips.pop())
            if found is not None:
                logits.insert(0, found)
        # Under autocast too the image itself is float32: bfloat16 near 1 steps by 1/256.
        with torch.autocast(x.device.type, enabled=False):
            return (x + self.out(y.float()), *logits)


class Down(nn.Module):
    """Half the size: conv3x3 to a quarter of the channels, pixel unshuffle."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels // 4, 3, padding=1)

    def forward(self, x: Features) -> Float[Tensor, "batch out_channels height/2 width/2"]:
        """NCHW -> NCHW."""
        return F.pixel_unshuffle(self.conv(x), 2)


class DecoderLevel(nn.Module):
    """MGCA(blocks(conv1x1([up(y), skip]))); without MGCA there are no logits."""

    def __init__(
        self, in_channels: int, channels: int, blocks: nn.Module, mgca: MGCA | None
    ) -> None:
        super().__init__()
        self.up = nn.Conv2d(in_channels, 4 * channels, 3, padding=1)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        self.blocks = blocks
        self.mgca = mgca

    def forward(
        self, y: Features, skip: Float[Tensor, "batch _channels 2*height 2*width"]
    ) -> tuple[Tensor, Tensor | None]:
        """NCHW; features of the skip's shape, and logits of rain or None."""
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
    """Raise ValueError, with the option's name, for options that do not fit together."""
    if not 2 <= len(widths) <= 5 or not len(widths) == len(depths) == len(heads):
        raise ValueError(
            "widths, depths and heads have one number a level, two to five levels; "
            f"got {tuple(widths)}, {tuple(depths)}, {tuple(heads)}"
        )
    if any(width % 4 or width % count for width, count in zip(widths, heads, strict=True)):
        raise ValueError(
            f"4 and heads divide widths level by level, got {tuple(widths)}, {tuple(heads)}"
        )
    if block not in BLOCKS:
        raise ValueError(f"block is one of {', '.join(BLOCKS)}, got {block!r}")
    if len(mgca) >= len(widths) or not set(mgca) <= {"window", "channel", "none"}:
        raise ValueError(
            "mgca has window, channel or none for scales 1, 1/2, ..., fewer than levels; "
            f"got {tuple(mgca)} for {len(widths)} levels"
        )


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b
