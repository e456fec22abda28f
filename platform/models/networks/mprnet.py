"""MPRNet: three stages, on four parts of the image, on two, and on the whole."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from derain.models.layers.sizes import check_sides
from derain.models.losses.pixel import charbonnier_edge

Features = Float[Tensor, "batch channels height width"]


class MPRNet(nn.Module):
    """Rainy image -> clean image, NCHW RGB in [0, 1].

    Stage 1 encodes the four quarters of the image apart and decodes its upper and lower halves;
    stage 2 encodes the halves and decodes the whole; stage 3 stays at full resolution. Encoder and
    decoder are U-Nets of channel attention blocks. Between two stages a supervised attention
    module makes an image and passes on what it attends to, and features go from one stage's
    U-Net into the next one's encoder (cross-stage feature fusion).

    With the defaults the published network for deraining: 3,637,249 parameters (published as
    3.64 M). Names in the state dict are those of the published weights; one PReLU is shared by all
    blocks and appears under many of them. Published training compares the images of all three
    stages (`stages`) with the clean one, by Charbonnier and edge losses: `auxiliary` has those of
    the first two, and loss.pixel=charbonnier_edge is that of the last.

    Source: Zamir et al., "Multi-Stage Progressive Image Restoration", CVPR 2021, section 3.

    Raises ValueError where the channels are fewer than `reduction`.
    """

    stride = 8
    """Height and width of an image must be multiples of this."""

    frozen: tuple[str, ...] = ()

    auxiliary: dict[str, float]
    """The loss of the earlier stages, which `forward(x, clean=clean)` returns, and its weight."""

    shallow_feat1: nn.Module
    shallow_feat2: nn.Module
    shallow_feat3: nn.Module

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
        unet_growth: channels that each lower level of the U-Nets has more.
        full_growth: channels that stage 3 has more.
        blocks: channel attention blocks in each of the three groups of stage 3.
        reduction: how much narrower the attention is inside.
        stage_weight: of the losses of stages 1 and 2; 0 trains on the last image alone.
        """
        super().__init__()
        if reduction < 1 or width < reduction:
            raise ValueError(f"width is at least reduction, got {width=} and {reduction=}")
        self.auxiliary = {"stages": stage_weight} if stage_weight else {}
        shared = nn.PReLU()
        block = _BlockFactory(reduction, shared)
        full = width + full_growth
        for stage in (1, 2, 3):
            first = nn.Sequential(_conv3(3, width), block(width))
            self.add_module(f"shallow_feat{stage}", first)
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
        x: Float[Tensor, "batch 3 height width"],
        clean: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Rainy -> clean, NCHW RGB in [0, 1] (the output not clamped): the image of stage 3.

        With `clean` the loss "stages", the sum over stages 1 and 2, comes back beside it.

        Raises ValueError unless height and width are multiples of `stride`.
        """
        *earlier, image = self.stages(x)
        if clean is None:
            return image
        losses = [charbonnier_edge(stage.float(), clean) for stage in earlier]
        return image, {name: torch.stack(losses).sum() for name in self.auxiliary}

    def stages(self, x: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, Tensor, Tensor]:
        """The images of stages 1, 2 and 3, each NCHW RGB of the size of `x`, not clamped.

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_sides("MPRNet", x, self.stride)
        # Parts of an image are treated alike and apart: they go through as one larger batch.
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
        # Under autocast too the image itself is float32: bfloat16 near 1 steps by 1/256.
        with torch.autocast(x.device.type, enabled=False):
            image3 = x + self.tail(features.float())
        return _join(image1, dim=2), image2, image3


class ChannelAttentionBlock(nn.Module):
    """x + r * sigmoid(conv(relu(conv(mean of r over the pixels)))), r = conv(prelu(conv(x)))."""

    def __init__(self, channels: int, reduction: int, act: nn.Module) -> None:
        super().__init__()
        self.CA = _ChannelAttention(channels, reduction)
        self.body = nn.Sequential(_conv3(channels, channels), act, _conv3(channels, channels))

    def forward(self, x: Features) -> Features:
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

    def forward(self, x: Features) -> Features:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


class _BlockFactory:
    """Makes channel attention blocks that share one PReLU."""

    def __init__(self, reduction: int, act: nn.Module) -> None:
        self._reduction = reduction
        self._act = act

    def __call__(self, channels: int) -> ChannelAttentionBlock:
        return ChannelAttentionBlock(channels, self._reduction, self._act)

    def pair(self, channels: int) -> nn.Sequential:
        return nn.Sequential(self(channels), self(channels))


class Encoder(nn.Module):
    """Three levels of two blocks; with `fused`, plus features of the stage before at each."""

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
        self, x: Features, encoded: Sequence[Tensor] = (), decoded: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """NCHW -> features at H, H/2, H/4; `encoded` and `decoded` are the same of another stage
        and are needed with `fused`."""
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
    """Upwards from H/4: two blocks a level, skips through one block each."""

    decoder_level1: nn.Module
    decoder_level2: nn.Module
    decoder_level3: nn.Module

    def __init__(self, width: int, growth: int, block: _BlockFactory) -> None:
        super().__init__()
        for level in (1, 2, 3):
            channels = width + (level - 1) * growth
            self.add_module(f"decoder_level{level}", block.pair(channels))
        self.skip_attn1, self.skip_attn2 = block(width), block(width + growth)
        self.up21, self.up32 = _Up(width, growth), _Up(width + growth, growth)

    def forward(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Features at H, H/2, H/4 -> as many, of the same shapes."""
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

    def forward(self, x: Features, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        """NCHW, and stage 2's features at H, H/2, H/4 -> the shape of `x`."""
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

    def forward(self, x: Features) -> Features:
        return x + self.body(x)


class SupervisedAttention(nn.Module):
    """image = p + conv2(x); features = x + conv1(x) * sigmoid(conv3(image))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv1(channels, channels)
        self.conv2 = _conv1(channels, 3)
        self.conv3 = _conv1(3, channels)

    def forward(
        self, x: Features, image: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Tensor, Tensor]:
        """Features and the rainy image, NCHW -> (features, image without rain)."""
        with torch.autocast(x.device.type, enabled=False):
            clean = image + self.conv2(x.float())
        return x + self.conv1(x) * self.conv3(clean).sigmoid(), clean


class _Down(nn.Module):
    """Half the size, `growth` more channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        half = nn.Upsample(scale_factor=0.5, mode="bilinear", align_corners=False)
        self.down = nn.Sequential(half, _conv1(channels, channels + growth))

    def forward(self, x: Features) -> Tensor:
        return self.down(x)


class _Up(nn.Module):
    """Twice the size, `growth` fewer channels.

    The convolution goes first: both orders give the same result, this one a quarter of the work.
    Its number in the published names is 1, the bilinear interpolation's 0.
    """

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        double = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up = nn.Sequential(double, _conv1(channels + growth, channels))

    def forward(self, x: Features) -> Tensor:
        return self.up[0](self.up[1](x))


def _split(x: Tensor, dim: int) -> Tensor:
    """Both halves of every image, the second ones behind the first ones in the batch.

    Not by `chunk`: where sides are free, ONNX gets a split of unknown parts from it and fails.
    """
    return torch.cat(x.unflatten(dim, (2, -1)).unbind(dim), dim=0)


def _join(x: Tensor, dim: int) -> Tensor:
    """Undo `_split`."""
    return torch.cat(x.unflatten(0, (2, -1)).unbind(0), dim=dim)


def _conv1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
