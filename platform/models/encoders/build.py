"""Build an encoder by name: the two ResNet-50s and two ViTs of FCLIP-UNet's Table 6."""

from collections.abc import Sequence
from typing import Literal

from derain.models.encoders.clip_resnet import BNMode, CLIPResNetEncoder
from derain.models.encoders.clip_vit import CLIPViTEncoder
from derain.models.encoders.frozen_encoder import FrozenEncoder
from derain.models.encoders.imagenet_resnet import ImageNetResNetEncoder

EncoderName = Literal["clip_rn50", "clip_vit_b32", "clip_vit_b16", "imagenet_resnet50"]

DEFAULT_WEIGHTS = {
    "clip_rn50": "openai",
    "clip_vit_b32": "openai",
    "clip_vit_b16": "openai",
    "imagenet_resnet50": "IMAGENET1K_V1",
}
"""The published weights that each encoder uses by default."""


def build_encoder(
    name: EncoderName,
    weights: str | None = None,
    layers: Sequence[int] | None = None,
    width: int | None = None,
    bn_mode: BNMode = "frozen",
    seed: int = 0,
) -> FrozenEncoder:
    """Build the encoder `name`; None means the published weights, layers and width.

    layers: for a ResNet, the blocks of layer1 to layer3 (a fourth number, layer4, is ignored); for
        a ViT, a single number.
    layers, width: other sizes than the published ones need weights="random" or a file of that
        size.
    bn_mode: "clip_denoising" is for "clip_rn50" only.

    Raises FileNotFoundError if the weights are not available, ValueError for invalid options.
    """
    if name not in DEFAULT_WEIGHTS:
        raise ValueError(f"encoder must be one of {', '.join(DEFAULT_WEIGHTS)}, got {name!r}")
    weights = weights or DEFAULT_WEIGHTS[name]
    if name == "clip_rn50":
        return CLIPResNetEncoder(weights, layers or (3, 4, 6, 3), width or 64, bn_mode, seed)
    if bn_mode != "frozen":
        raise ValueError(f"bn_mode={bn_mode!r} is for clip_rn50 only, not for {name}")
    if name == "imagenet_resnet50":
        if width not in (None, 64):
            raise ValueError(f"The width of imagenet_resnet50 must be 64, got {width}")
        return ImageNetResNetEncoder(weights, layers or (3, 4, 6, 3), seed)
    patch = 32 if name == "clip_vit_b32" else 16
    return CLIPViTEncoder(weights, patch, layers or (12,), width or 768, seed)
