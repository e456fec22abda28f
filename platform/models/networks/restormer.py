"""Restormer: a U-Net of transformer blocks whose attention is across channels, not pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.channel_norm import ChannelNorm
from derain.models.layers.gated_ffn import gated_ffn
from derain.models.layers.output import float32_output
from derain.models.shapes import FeatureMap, ImageBatch, check_image_size


class Restormer(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1].

        output = x + conv3x3(refinement(decoder(encoder(conv3x3(x)))))

    Four levels of transformer blocks, c, 2c, 4c and 8c channels wide at H, H/2, H/4 and H/8, with
    skip connections from encoder to decoder; the decoder's top level keeps 2c channels. Attention
    is across channels, so memory is linear in the number of pixels.

    With the defaults this is the network published for deraining: 26,126,644 parameters (published
    as 26.13 M). State-dict names are those of the published weights. Not implemented: the variant
    whose LayerNorm has no bias (published for denoising).

    Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration",
    CVPR 2022, section 3.

    Raises ValueError if the numbers of levels or heads do not fit.
    """

    stride = 8
    """Height and width of an image must be multiples of this."""

    frozen: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        width: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
    ) -> None:
        """
        width: c, the channels at full resolution.
        blocks, heads: transformer blocks and attention heads at H, H/2, H/4, H/8, the same for
            encoder and decoder.
        refinement_blocks: transformer blocks after the decoder, at full resolution.
        expansion: hidden channels of the feed-forward layers, as a multiple of their input.
        """
        super().__init__()
        _check_options(width, blocks, heads)
        c1, c2, c3, c4 = (width * 2**level for level in range(4))
        widths = tuple(zip((c1, c2, c3, c4), heads, blocks, strict=True))
        stages = [_blocks(channels, h, count, expansion) for channels, h, count in widths]
        self.patch_embed = _Embedding(c1)
        self.encoder_level1, self.encoder_level2, self.encoder_level3, self.latent = stages
        self.down1_2, self.down2_3, self.down3_4 = (_Down(c) for c in (c1, c2, c3))
        self.up4_3, self.up3_2, self.up2_1 = (_Up(c) for c in (c4, c3, c2))
        self.reduce_chan_level3 = nn.Conv2d(c4, c3, 1, bias=False)
        self.reduce_chan_level2 = nn.Conv2d(c3, c2, 1, bias=False)
        self.decoder_level3 = _blocks(c3, heads[2], blocks[2], expansion)
        self.decoder_level2 = _blocks(c2, heads[1], blocks[1], expansion)
        self.decoder_level1 = _blocks(c2, heads[0], blocks[0], expansion)
        self.refinement = _blocks(c2, heads[0], refinement_blocks, expansion)
        self.output = nn.Conv2d(c2, 3, 3, padding=1, bias=False)

    def forward(self, x: ImageBatch) -> ImageBatch:
        """Rainy -> clean, NCHW RGB, float32 in [0, 1] (the output is not clamped).

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_image_size("Restormer", x, self.stride)
        e1 = self.encoder_level1(self.patch_embed(x))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        y = self.latent(self.down3_4(e3))
        y = self.decoder_level3(self.reduce_chan_level3(_concatenated(self.up4_3(y), e3)))
        y = self.decoder_level2(self.reduce_chan_level2(_concatenated(self.up3_2(y), e2)))
        y = self.refinement(self.decoder_level1(_concatenated(self.up2_1(y), e1)))
        return x + float32_output(self.output, y)


class TransformerBlock(nn.Module):
    """y = x + MDTA(LN(x)), z = y + GDFN(LN(y)); see `Attention` and `FeedForward`."""

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = Attention(channels, heads)
        self.norm2 = LayerNorm(channels)
        self.ffn = FeedForward(channels, expansion)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        x = x + self.attn(self.norm1(x))
        return self.ffn(x, self.norm2)


class Attention(nn.Module):
    """Multi-head attention across channels (MDTA): with q, k, v = depthwise3x3(conv1x1(x)),

        A = softmax(t q' k'^T),   output = conv1x1(A v)

    q' and k' (channels of a head x pixels) are q and k scaled to length 1 over the pixels; t is a
    learned temperature per head. Equation 1 of the paper.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False
        )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        batch, channels, height, width = x.shape
        size = (batch, self.heads, channels // self.heads, height * width)
        q, k, v = (part.reshape(size) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1))
        # float32: bfloat16 would lose digits when squares are summed over all pixels
        q, k = F.normalize(q.float(), dim=-1), F.normalize(k.float(), dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention.to(v.dtype) @ v).reshape(x.shape))


class FeedForward(nn.Module):
    """x + GDFN(norm(x)), a gated feed-forward layer; see `gated_ffn`. Equation 2 of the paper."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: FeatureMap, norm: nn.Module) -> FeatureMap:
        """NCHW -> NCHW."""
        return gated_ffn(x, norm, self.project_in, self.dwconv, self.project_out)


class LayerNorm(nn.Module):
    """`ChannelNorm` with eps 1e-5, under the name `body` that the published weights use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = ChannelNorm(channels)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        return self.body(x)


class _Embedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class _Down(nn.Module):
    """Halve height and width, double the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _Up(nn.Module):
    """Double height and width, halve the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _blocks(channels: int, heads: int, count: int, expansion: float) -> nn.Sequential:
    return nn.Sequential(*(TransformerBlock(channels, heads, expansion) for _ in range(count)))


def _concatenated(y: Tensor, skip: Tensor) -> Tensor:
    return torch.cat((y, skip.to(y.dtype)), dim=1)


def _check_options(width: int, blocks: Sequence[int], heads: Sequence[int]) -> None:
    if len(blocks) != 4 or len(heads) != 4:
        raise ValueError(
            "blocks and heads must have four numbers each, one per level; "
            f"got {tuple(blocks)}, {tuple(heads)}"
        )
    # The top level of the decoder has twice the width and the same number of heads.
    if width % 2 or any(width * 2**level % count for level, count in enumerate(heads)):
        raise ValueError(
            "width must be even, and each level's channels a multiple of its heads; "
            f"got {width} and {tuple(heads)}"
        )
