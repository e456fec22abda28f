"""NAFNet: a U-Net whose blocks have no activation function, only products of features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from derain.models.layers.sizes import check_sides


class NAFNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB in [0, 1].

        output = x + ending(U(intro(x)))

    U has a level for every number of encoder_blocks: NAFBlocks, then a 2x2 convolution of stride
    2 that doubles the channels; middle_blocks at the lowest resolution; then, upwards, a 1x1
    convolution with pixel shuffle, plus the encoder's features of that level, and NAFBlocks.

    With the defaults 17.11 M parameters, the published "width32" for deblurring and the one that
    deraining tables quote. Names in the state dict are those of the published weights. The
    published code pads with zeros to a multiple of 16, here the predictor mirrors. Its "local"
    variant for large images (TLC) is not here: the channel attention sees the whole image.

    Source: Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, section 3.

    Raises ValueError where encoder and decoder have different numbers of levels.
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
        width: channels at full resolution; twice as many at every level below.
        encoder_blocks, middle_blocks: from high to low resolution.
        decoder_blocks: from low to high resolution.
        """
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks) or not encoder_blocks:
            raise ValueError(
                "encoder_blocks and decoder_blocks have one number a level; got "
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

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Rainy -> clean, NCHW RGB in [0, 1] (the output not clamped).

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_sides("NAFNet", x, self.stride)
        y, skips = self.intro(x), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(y))
            y = down(skips[-1])
        y = self.middle_blks(y)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            y = decoder(up(y) + skips.pop())
        # Under autocast too the image itself is float32: bfloat16 near 1 steps by 1/256.
        with torch.autocast(x.device.type, enabled=False):
            return x + self.ending(y.float())


class NAFBlock(nn.Module):
    """Two residual branches, SG(a, b) = a b over the two halves of the channels.

        y = x + beta conv3(SCA(SG(conv2(conv1(norm1(x))))))     conv2 depthwise 3x3, others 1x1
        z = y + gamma conv5(SG(conv4(norm2(y))))
        SCA(f) = f * conv1x1(mean of f over the pixels)

    beta and gamma, one number a channel, start at 0: the block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = ChannelNorm(channels)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW."""
        y = _simple_gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.beta * self.conv3(y * self.sca(y))
        return y + self.gamma * self.conv5(_simple_gate(self.conv4(self.norm2(y))))


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of every pixel, eps 1e-6, with a weight and a bias a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW; a permuted view suffices where the memory format is channels_last."""
        y = nn.functional.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6
        )
        return y.permute(0, 3, 1, 2)


def _simple_gate(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))
