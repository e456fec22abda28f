"""The frozen encoders of FCLIP-UNet's Table 6, by name: two ResNet-50s and two ViTs."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.clip import (
    CLIP_MEAN,
    CLIP_STD,
    BNMode,
    CLIPResNetEncoder,
    randomise_resnet,
    randomise_transformer,
    read_clip,
    visual_part,
)
from derain.models.encoders.frozen import FrozenEncoder, Taps
from derain.models.weights import download_torchvision, load_strictly, read_state_dict

EncoderName = Literal["clip_rn50", "clip_vit_b32", "clip_vit_b16", "imagenet_resnet50"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_TAGS = ("IMAGENET1K_V1", "IMAGENET1K_V2")
"""torchvision's names of its ResNet-50 weights. Which one the paper has is not stated in it."""

PUBLISHED = {
    "clip_rn50": "openai",
    "clip_vit_b32": "openai",
    "clip_vit_b16": "openai",
    "imagenet_resnet50": "IMAGENET1K_V1",
}
"""The weights that an encoder has where none are named."""


def build_encoder(
    name: EncoderName,
    weights: str | None = None,
    layers: Sequence[int] | None = None,
    width: int | None = None,
    bn_mode: BNMode = "frozen",
    seed: int = 0,
) -> FrozenEncoder:
    """The encoder `name`; None takes the published weights, layers and width.

    `layers`: blocks of layer1 to layer3 (a fourth number, layer4, is not built) of a ResNet, or one
    number for a ViT. Sizes other than the published ones go with weights="random" or a file of
    that size. bn_mode="clip_denoising" is for "clip_rn50" alone.

    Raises FileNotFoundError where weights cannot be had, ValueError for options that do not fit.
    """
    if name not in PUBLISHED:
        raise ValueError(f"encoder is one of {', '.join(PUBLISHED)}, got {name!r}")
    weights = weights or PUBLISHED[name]
    if name == "clip_rn50":
        return CLIPResNetEncoder(weights, layers or (3, 4, 6, 3), width or 64, bn_mode, seed)
    if bn_mode != "frozen":
        raise ValueError(f"bn_mode={bn_mode!r} is a habit of clip_rn50 alone, not of {name}")
    if name == "imagenet_resnet50":
        if width not in (None, 64):
            raise ValueError(f"imagenet_resnet50 has the width 64, got {width}")
        return ImageNetResNetEncoder(weights, layers or (3, 4, 6, 3), seed)
    patch = 32 if name == "clip_vit_b32" else 16
    return CLIPViTEncoder(weights, patch, layers or (12,), width or 768, seed)


class ImageNetResNetEncoder(FrozenEncoder):
    """Stem, layer1, layer2 and layer3 of torchvision's ResNet-50, trained to classify ImageNet.

        F1    64 channels  H/2   the 7x7 convolution, before the max-pool
        F2   256 channels  H/4   max-pool and layer1
        F3   512 channels  H/8   layer2
        F4  1024 channels  H/16  layer3

    So its taps have the channels and sizes of CLIP-RN50's. ImageNet's mean and standard deviation
    are applied inside, and its BatchNorms use their running statistics. The paper does not say how
    its own ImageNet encoder was fed; its 16.53 dB (Table 6) is below what an untrained one gives,
    so it is no figure to reproduce.

    `weights`: "random", a name in `IMAGENET_TAGS` (torchvision downloads it), or the path of a
    .safetensors or state dict .pt file with torchvision's names.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Raises FileNotFoundError where weights cannot be had, ValueError where they do not fit.
    """

    mean_std = (IMAGENET_MEAN, IMAGENET_STD)

    def __init__(self, weights: str, layers: Sequence[int] = (3, 4, 6, 3), seed: int = 0) -> None:
        super().__init__((64, 256, 512, 1024), (2, 4, 8, 16), drifts=False)
        self.resnet = _imagenet_resnet(layers)
        if weights == "random":
            self.resnet.to_empty(device="cpu")
            randomise_resnet(self.resnet, torch.Generator().manual_seed(seed))
        else:
            tensors = _read_imagenet(weights)
            unused = ("layer4.", "fc.")
            used = {k: v for k, v in tensors.items() if not k.startswith(unused)}
            load_strictly(self.resnet, used, f"resnet50 {weights}")
        self.requires_grad_(False)
        self.train()

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Taps:
        """F1 to F4: NCHW RGB in [0, 1] -> non-negative feature maps."""
        net: Any = self.resnet  # torchvision's classes carry no types
        f1 = net.relu(net.bn1(net.conv1(self.normalise(x))))
        f2 = net.layer1(net.maxpool(f1))
        f3 = net.layer2(f2)
        return f1, f2, f3, net.layer3(f3)


class CLIPViTEncoder(FrozenEncoder):
    """The tokens of a CLIP-ViT after each quarter of its blocks, as four maps of one size.

    F1 to F4 are the outputs of blocks 3, 6, 9 and 12 of 12 without the class token, put back on
    the grid of patches: `width` channels at H/patch. The embedding of positions, made for 224 px,
    is resampled to the grid (bicubic). CLIP's mean and standard deviation are applied inside.

    Which layers the paper takes, and how it brings them to the sizes of a U-Net, is not stated in
    it; the latter is `fclip_unet.TokenAdapter`. Memory of the attention is linear in the tokens,
    its time is not: a 512x512 image has 1,024 of them at patch 16.

    `weights`: "random", a tag in `clip.TAGS`, or a file as for `CLIPResNetEncoder`, of a model with
    QuickGELU as OpenAI's.

    Source: Radford et al., ICML 2021; Dosovitskiy et al., ICLR 2021.

    Raises FileNotFoundError where weights cannot be had, ValueError where they do not fit.
    """

    mean_std = (CLIP_MEAN, CLIP_STD)

    def __init__(
        self,
        weights: str,
        patch: int = 32,
        layers: Sequence[int] = (12,),
        width: int = 768,
        seed: int = 0,
    ) -> None:
        if len(layers) != 1 or layers[0] < 4 or layers[0] % 4:
            raise ValueError(f"layers of a ViT is one multiple of 4, got {tuple(layers)}")
        super().__init__((width,) * 4, (patch,) * 4, drifts=False)
        self.vit = _vit(patch, layers[0], width)
        if weights == "random":
            self.vit.to_empty(device="cpu")
            randomise_transformer(self.vit, torch.Generator().manual_seed(seed))
        else:
            tensors, path = read_clip(f"ViT-B-{patch}", weights)
            load_strictly(self.vit, visual_part(tensors, ("ln_post.", "proj")), path)
        self.requires_grad_(False)
        self.train()

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Taps:
        """F1 to F4: NCHW RGB in [0, 1] -> `width` channels at H/patch, as the blocks leave them."""
        net: Any = self.vit  # open_clip's classes carry no types
        patches = net.conv1(self.normalise(x))
        grid = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        first = net.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        positions = _resampled(net.positional_embedding, grid).to(tokens.dtype)
        tokens = net.ln_pre(torch.cat((first, tokens), dim=1) + positions)
        taps = []
        blocks = net.transformer.resblocks
        for number, block in enumerate(blocks, start=1):
            tokens = block(tokens)
            if number % (len(blocks) // 4) == 0:
                taps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
        f1, f2, f3, f4 = taps
        return f1, f2, f3, f4


def _resampled(
    positions: Float[Tensor, "tokens width"], grid: Sequence[int]
) -> Float[Tensor, "others width"]:
    """The embedding of the class and of a square of patches -> of the class and of `grid`."""
    side = round((positions.shape[0] - 1) ** 0.5)
    if (side, side) == tuple(grid):
        return positions
    square = positions[1:].unflatten(0, (side, side)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(square, tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat((positions[:1], resized[0].flatten(1).T))


def _imagenet_resnet(layers: Sequence[int]) -> nn.Module:
    """torchvision's ResNet without layer4 and the classifier, on the meta device: no values."""
    if len(layers) not in (3, 4):
        raise ValueError(f"layers has the blocks of layer1 to layer3, got {tuple(layers)}")
    from torchvision.models.resnet import Bottleneck, ResNet  # seconds to import

    with torch.device("meta"):
        net = ResNet(Bottleneck, [*layers[:3], 1])
    del net.layer4, net.avgpool, net.fc
    return net


def _read_imagenet(weights: str) -> dict[str, Tensor]:
    if weights in IMAGENET_TAGS:
        return download_torchvision("resnet50", weights, "set encoder_weights=/path/to/that/file")
    return read_state_dict(weights)


def _vit(patch: int, layers: int, width: int) -> nn.Module:
    """The image tower of open_clip's CLIP for 224 px, without its head, on the meta device."""
    from open_clip.transformer import QuickGELU, VisionTransformer  # seconds to import

    with torch.device("meta"):
        net = VisionTransformer(
            224, patch, width, layers, max(1, width // 64), 4.0, act_layer=QuickGELU
        )
    del net.ln_post, net.proj
    return net
