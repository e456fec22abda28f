"""MPRNet: three stages, which work on quarters, halves and the whole of the image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from derain.models.layers.output import float32_output
from derain.models.losses.pixel import charbonnier_edge
from derain.models.shapes import FeatureMap, ImageBatch, check_image_size


class MPRNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1].

    Stage 1 encodes the four quarters of the image separately and decodes its upper and lower
    halves; stage 2 encodes the halves and decodes the whole; stage 3 stays at full resolution.
    Encoder and decoder form U-Nets of channel attention blocks. Between two stages, a supervised
    attention module predicts an image and passes on the attended features, and features of one
    stage's U-Net enter the next stage's encoder (cross-stage feature fusion).

    With the defaults this is the network published for deraining: 3,637,249 parameters (published
    as 3.64 M). State-dict names are those of the published weights; a single PReLU is shared by
    all blocks and appears under many names. Published training compares the images of all three
    stages (`stages`) with the clean image, by Charbonnier and edge losses: `auxiliary` covers the
    first two stages, loss.pixel=charbonnier_edge the last.

    Source: Zamir et al., "Multi-Stage Progressive Image Restoration", CVPR 2021, section 3.

    Raises ValueError if `width` is smaller than `reduction`.
    """

    stride = 8
    """Height and width of an image must be multiples of this."""

    frozen: tuple[str, ...] = ()

    auxiliary: dict[str, float]
    """Weight of "stages", the loss on stages 1 and 2 that `forward(x, clean=clean)` returns."""

    def __init__(
        self,
        *,
        width: int = 40,
        unet_growth: int = 20,
        full_growth: int = 16,
        blocks: int = 8,
        reduction: int = 4,
        stage_weight: float = 1.0,
    ) -> None:
        """
        width: channels at full resolution.
        unet_growth: channels that each level of the U-Nets adds to the level above.
        full_growth: channels that stage 3 adds to `width`.
        blocks: channel attention blocks in each of the three groups of stage 3.
        reduction: channels of a block over the hidden channels of its attention.
        stage_weight: weight of the losses of stages 1 and 2; 0 trains on the last image alone.
        """
        super().__init__()
        if reduction < 1 or width < reduction:
            raise ValueError(f"width must be at least reduction, got {width=}, {reduction=}")
        self.auxiliary = {"stages": stage_weight} if stage_weight else {}
        block = _BlockFactory(reduction, nn.PReLU())
        full = width + full_growth
        self.shallow_feat1 = nn.Sequential(_conv3(3, width), block(width))
        self.shallow_feat2 = nn.Sequential(_conv3(3, width), block(width))
        self.shallow_feat3 = nn.Sequential(_conv3(3, width), block(width))
        self.stage1_encoder = Encoder(width, unet_growth, block, fused=False)
        self.stage1_decoder = Decoder(width, unet_growth, block)
        self.stage2_encoder = Encoder(width, unet_growth, block, fused=True)
        self.stage2_decoder = Decoder(width, unet_growth, block)
        self.stage3_orsnet = FullResolution(width, unet_growth, full, block, blocks)
        self.sam12, self.sam23 = SupervisedAttention(width), SupervisedAttention(width)
        self.concat12 = _conv3(2 * width, width)
        self.concat23 = _conv3(2 * width, full)
        self.tail = _conv3(full, 3)

    def forward(
        self,
        x: ImageBatch,
        clean: ImageBatch | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Rainy -> clean, NCHW RGB, float32 in [0, 1] (not clamped): the image of stage 3.

        With `clean`, returns (image, {"stages": loss}), the loss summed over stages 1 and 2.

        Raises ValueError unless height and width are multiples of `stride`.
        """
        *earlier, image = self.stages(x)
        if clean is None:
            return image
        losses = [charbonnier_edge(stage.float(), clean) for stage in earlier]
        return image, {name: torch.stack(losses).sum() for name in self.auxiliary}

    def stages(self, x: ImageBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The images of stages 1, 2 and 3, each NCHW RGB of the shape of `x`, not clamped.

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_image_size("MPRNet", x, self.stride)
        # Parts of an image get the same treatment, independently: process them as one larger batch.
        halves = _split(x, dim=2)
        quarters = _split(halves, dim=3)
        encoded = self.stage1_encoder(self.shallow_feat1(quarters))
        encoded = [_join(level, dim=3) for level in encoded]
        decoded = self.stage1_decoder(encoded)
        attended, image1 = self.sam12(decoded[0], halves)

        features = self.concat12(torch.cat((self.shallow_feat2(halves), attended), dim=1))
        encoded = self.stage2_encoder(features, encoded, decoded)
        encoded = [_join(level, dim=2) for level in encoded]
        decoded = self.stage2_decoder(encoded)
        attended, image2 = self.sam23(decoded[0], x)

        features = self.concat23(torch.cat((self.shallow_feat3(x), attended), dim=1))
        features = self.stage3_orsnet(features, encoded, decoded)
        image3 = x + float32_output(self.tail, features)
        return _join(image1, dim=2), image2, image3


class ChannelAttentionBlock(nn.Module):
    """x + r * sigmoid(conv(relu(conv(mean of r over the pixels)))), r = conv(prelu(conv(x)))."""

    def __init__(self, channels: int, reduction: int, act: nn.Module) -> None:
        super().__init__()
        self.CA = _ChannelAttention(channels, reduction)
        self.body = nn.Sequential(_conv3(channels, channels), act, _conv3(channels, channels))

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        return x + self.CA(self.body(x))


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = channels // reduction
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: FeatureMap) -> FeatureMap:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


class _BlockFactory:
    """Creates channel attention blocks that share one PReLU."""

    def __init__(self, reduction: int, act: nn.Module) -> None:
        self._reduction = reduction
        self._act = act

    def __call__(self, channels: int) -> ChannelAttentionBlock:
        return ChannelAttentionBlock(channels, self._reduction, self._act)

    def pair(self, channels: int) -> nn.Sequential:
        return nn.Sequential(self(channels), self(channels))


class Encoder(nn.Module):
    """Three levels of two blocks; with `fused`, each level adds features of the stage before."""

    def __init__(self, width: int, growth: int, block: _BlockFactory, *, fused: bool) -> None:
        super().__init__()
        widths = [width + level * growth for level in range(3)]
        for level, channels in enumerate(widths, start=1):
            self.add_module(f"encoder_level{level}", block.pair(channels))
        self.down12, self.down23 = _Down(width, growth), _Down(widths[1], growth)
        self.fused = fused
        for level, channels in enumerate(widths if fused else (), start=1):
            self.add_module(f"csff_enc{level}", _conv1(channels, channels))
            self.add_module(f"csff_dec{level}", _conv1(channels, channels))

    def forward(
        self, x: FeatureMap, encoded: Sequence[Tensor] = (), decoded: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """NCHW -> features at H, H/2, H/4.

        `encoded` and `decoded` are the features of the stage before, required with `fused`.
        """
        levels = []
        for level in (1, 2, 3):
            y = self.get_submodule(f"encoder_level{level}")(x)
            if self.fused:
                y = y + self.get_submodule(f"csff_enc{level}")(encoded[level - 1])
                y = y + self.get_submodule(f"csff_dec{level}")(decoded[level - 1])
            levels.append(y)
            if level < 3:
                x = self.get_submodule(f"down{level}{level + 1}")(y)
        return levels


class Decoder(nn.Module):
    """From H/4 up to H: two blocks per level; each skip connection has a block of its own."""

    def __init__(self, width: int, growth: int, block: _BlockFactory) -> None:
        super().__init__()
        self.decoder_level1 = block.pair(width)
        self.decoder_level2 = block.pair(width + growth)
        self.decoder_level3 = block.pair(width + 2 * growth)
        self.skip_attn1, self.skip_attn2 = block(width), block(width + growth)
        self.up21, self.up32 = _Up(width, growth), _Up(width + growth, growth)

    def forward(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Features at H, H/2, H/4 -> features of the same shapes."""
        e1, e2, e3 = encoded
        d3 = self.decoder_level3(e3)
        d2 = self.decoder_level2(self.up32(d3) + self.skip_attn2(e2))
        d1 = self.decoder_level1(self.up21(d2) + self.skip_attn1(e1))
        return [d1, d2, d3]


class FullResolution(nn.Module):
    """Stage 3: three residual groups at full resolution, each followed by features of stage 2."""

    def __init__(
        self, width: int, growth: int, full: int, block: _BlockFactory, blocks: int
    ) -> None:
        super().__init__()
        for number in (1, 2, 3):
            self.add_module(f"orb{number}", _Group(full, block, blocks))
            self.add_module(f"conv_enc{number}", _conv1(width, full))
            self.add_module(f"conv_dec{number}", _conv1(width, full))
        for side in ("enc", "dec"):
            twice = nn.Sequential(_Up(width + growth, growth), _Up(width, growth))
            self.add_module(f"up_{side}1", _Up(width, growth))
            self.add_module(f"up_{side}2", twice)

    def forward(
        self, x: FeatureMap, encoded: Sequence[Tensor], decoded: Sequence[Tensor]
    ) -> FeatureMap:
        """NCHW, with stage 2's features at H, H/2, H/4 -> the shape of `x`."""
        for number in (1, 2, 3):
            x = self.get_submodule(f"orb{number}")(x)
            for side, features in (("enc", encoded), ("dec", decoded)):
                y = features[number - 1]
                if number > 1:
                    y = self.get_submodule(f"up_{side}{number - 1}")(y)
                x = x + self.get_submodule(f"conv_{side}{number}")(y)
        return x


class _Group(nn.Module):
    """x + conv(blocks(x))."""

    def __init__(self, channels: int, block: _BlockFactory, count: int) -> None:
        super().__init__()
        blocks = (block(channels) for _ in range(count))
        self.body = nn.Sequential(*blocks, _conv3(channels, channels))

    def forward(self, x: FeatureMap) -> FeatureMap:
        return x + self.body(x)


class SupervisedAttention(nn.Module):
    """image = rainy + conv2(x); features = x + conv1(x) * sigmoid(conv3(image)). All 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv1(channels, channels)
        self.conv2 = _conv1(channels, 3)
        self.conv3 = _conv1(3, channels)

    def forward(self, x: FeatureMap, rainy: ImageBatch) -> tuple[FeatureMap, ImageBatch]:
        """Features and the rainy image, NCHW -> (features, image with the rain removed)."""
        image = rainy + float32_output(self.conv2, x)
        return x + self.conv1(x) * self.conv3(image).sigmoid(), image


class _Down(nn.Module):
    """Halve height and width, add `growth` channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        half = nn.Upsample(scale_factor=0.5, mode="bilinear", align_corners=False)
        self.down = nn.Sequential(half, _conv1(channels, channels + growth))

    def forward(self, x: FeatureMap) -> Tensor:
        return self.down(x)


class _Up(nn.Module):
    """Double height and width, remove `growth` channels.

    The convolution is computed first: either order gives the same result, this one with a quarter
    of the multiply-adds. In the published names it is number 1 and the interpolation number 0.
    """

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        double = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up = nn.Sequential(double, _conv1(channels + growth, channels))

    def forward(self, x: FeatureMap) -> Tensor:
        return self.up[0](self.up[1](x))


def _split(x: Tensor, dim: int) -> Tensor:
    """Both halves of each image as a larger batch: all first halves, then all second halves.

    Not by `chunk`: with dynamic image sizes the ONNX export turns that into a split of unknown
    sizes and fails.
    """
    return torch.cat(x.unflatten(dim, (2, -1)).unbind(dim), dim=0)


def _join(x: Tensor, dim: int) -> Tensor:
    """Undo `_split`."""
    return torch.cat(x.unflatten(0, (2, -1)).unbind(0), dim=dim)


def _conv1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
