"""Restormer: a U-Net of transformer blocks that attend across channels instead of pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.gated_ffn import gated_ffn
from derain.models.layers.sizes import check_sides


class Restormer(nn.Module):
    """Rainy image -> clean image, NCHW RGB in [0, 1].

        output = x + conv3x3(refinement(decoder(encoder(conv3x3(x)))))

    Four levels of width c, 2c, 4c, 8c at H, H/2, H/4, H/8, of transformer blocks with a skip
    between encoder and decoder; the decoder's highest level keeps 2c channels. Attention is over
    channels, so memory is linear in the number of pixels.

    With the defaults the published network for deraining: 26,126,644 parameters (published as
    26.13 M). Names in the state dict are those of the published weights. The variant whose
    LayerNorm has no bias (published for denoising) is not here.

    Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration",
    CVPR 2022, section 3.

    Raises ValueError where the numbers of levels or heads do not fit.
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
        width: channels c at full resolution.
        blocks, heads: transformer blocks and attention heads at H, H/2, H/4, H/8; the decoder has
            as many as the encoder.
        refinement_blocks: after the decoder, at full resolution.
        expansion: hidden channels of the feed-forward part over its channels.
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

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Rainy -> clean, NCHW RGB in [0, 1] (the output not clamped).

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_sides("Restormer", x, self.stride)
        e1 = self.encoder_level1(self.patch_embed(x))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        y = self.latent(self.down3_4(e3))
        y = self.decoder_level3(self.reduce_chan_level3(_joined(self.up4_3(y), e3)))
        y = self.decoder_level2(self.reduce_chan_level2(_joined(self.up3_2(y), e2)))
        y = self.refinement(self.decoder_level1(_joined(self.up2_1(y), e1)))
        # Under autocast too the image itself is float32: bfloat16 near 1 steps by 1/256.
        with torch.autocast(x.device.type, enabled=False):
            return x + self.output(y.float())


class TransformerBlock(nn.Module):
    """y = x + MDTA(LN(x)); z = y + GDFN(LN(y)). NCHW in and out, same shape."""

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = Attention(channels, heads)
        self.norm2 = LayerNorm(channels)
        self.ffn = FeedForward(channels, expansion)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW."""
        x = x + self.attn(self.norm1(x))
        return self.ffn(x, self.norm2)


class Attention(nn.Module):
    """MDTA, multi-head attention across channels: with q, k, v = depthwise3x3(conv1x1(x)),

        A = softmax(t q' k'^T),   output = conv1x1(A v)

    q', k' (channels of a head x pixels) have unit length over the pixels; t is learned, one number
    a head. Equation 1 of the paper.
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

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW."""
        batch, channels, height, width = x.shape
        size = (batch, self.heads, channels // self.heads, height * width)
        q, k, v = (part.reshape(size) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1))
        # float32: squares summed over all pixels lose digits in bfloat16
        q, k = F.normalize(q.float(), dim=-1), F.normalize(k.float(), dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention.to(v.dtype) @ v).reshape(x.shape))


class FeedForward(nn.Module):
    """x + GDFN(norm(x)), see `gated_ffn`. Equation 2 of the paper."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], norm: nn.Module
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW."""
        return gated_ffn(x, norm, self.project_in, self.dwconv, self.project_out)


class LayerNorm(nn.Module):
    """LayerNorm over the channels of every pixel, eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW; a permuted view suffices where the memory format is channels_last."""
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Embedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class _Down(nn.Module):
    """Half the size, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _Up(nn.Module):
    """Twice the size, half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _blocks(channels: int, heads: int, count: int, expansion: float) -> nn.Sequential:
    return nn.Sequential(*(TransformerBlock(channels, heads, expansion) for _ in range(count)))


def _joined(y: Tensor, skip: Tensor) -> Tensor:
    return torch.cat((y, skip.to(y.dtype)), dim=1)


def _check_options(width: int, blocks: Sequence[int], heads: Sequence[int]) -> None:
    if len(blocks) != 4 or len(heads) != 4:
        raise ValueError(
            f"blocks and heads have one number a level, four; got {tuple(blocks)}, {tuple(heads)}"
        )
    # The highest level of the decoder has twice the width and the same heads.
    if width % 2 or any(width * 2**level % count for level, count in enumerate(heads)):
        raise ValueError(
            f"width is even and each level's channels are a multiple of its heads; got {width} "
            f"and {tuple(heads)}"
        )
