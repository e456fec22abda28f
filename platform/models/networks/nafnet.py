"""NAFNet: a U-Net whose blocks multiply features instead of using an activation function."""

from collections.abc import Sequence

import torch
from torch import nn

from derain.models.layers.channel_norm import ChannelNorm
from derain.models.layers.gated_ffn import simple_gate
from derain.models.layers.output import float32_output
from derain.models.shapes import FeatureMap, ImageBatch, check_image_size

NORM_EPS = 1e-6


class NAFNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1].

        output = x + ending(U(intro(x)))

    U is a U-Net with one level per entry of encoder_blocks. Going down, each level has NAFBlocks
    and a 2x2 convolution of stride 2 that doubles the channels; middle_blocks follow at the lowest
    resolution. Going up, each level has a 1x1 convolution with pixel shuffle, adds the encoder's
    features of that level, and applies NAFBlocks.

    With the defaults, 17.11 M parameters: "width32" as published for deblurring, which is also the
    size that deraining tables quote. State-dict names are those of the published weights. Differs
    from the published code: that pads with zeros to a multiple of 16, here the predictor mirrors.
    Not implemented: the "local" variant for large images (TLC); channel attention always averages
    over the whole image.

    Source: Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, section 3.

    Raises ValueError if encoder and decoder have different numbers of levels.
    """

    stride = 16
    """Height and width of an image must be multiples of this; 2^levels for other depths."""

    frozen: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
    ) -> None:
        """
        width: channels at full resolution; doubled at each level below.
        encoder_blocks: NAFBlocks per level, from high to low resolution.
        middle_blocks: NAFBlocks at the lowest resolution.
        decoder_blocks: NAFBlocks per level, from low to high resolution.
        """
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks) or not encoder_blocks:
            raise ValueError(
                "encoder_blocks and decoder_blocks must have the same length, at least 1; got "
                f"{tuple(encoder_blocks)} and {tuple(decoder_blocks)}"
            )
        self.stride = 2 ** len(encoder_blocks)
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        for blocks in encoder_blocks:
            self.encoders.append(_blocks(width, blocks))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))
            width *= 2
        self.middle_blks = _blocks(width, middle_blocks)
        self.decoders, self.ups = nn.ModuleList(), nn.ModuleList()
        for blocks in decoder_blocks:
            self.ups.append(
                nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2))
            )
            width //= 2
            self.decoders.append(_blocks(width, blocks))

    def forward(self, x: ImageBatch) -> ImageBatch:
        """Rainy -> clean, NCHW RGB, float32 in [0, 1] (the output is not clamped).

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_image_size("NAFNet", x, self.stride)
        y, skips = self.intro(x), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(y))
            y = down(skips[-1])
        y = self.middle_blks(y)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            y = decoder(up(y) + skips.pop())
        return x + float32_output(self.ending, y)


class NAFBlock(nn.Module):
    """Two residual branches; SG is SimpleGate, the product of the two halves of the channels.

        y = x + beta conv3(SCA(SG(conv2(conv1(norm1(x))))))     conv2 depthwise 3x3, others 1x1
        z = y + gamma conv5(SG(conv4(norm2(y))))
        SCA(f) = f * conv1x1(mean of f over the pixels)

    beta and gamma, one number per channel, start at 0, so the block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = ChannelNorm(channels, eps=NORM_EPS)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        y = simple_gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.beta * self.conv3(y * self.sca(y))
        return y + self.gamma * self.conv5(simple_gate(self.conv4(self.norm2(y))))


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))
