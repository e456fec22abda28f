"""CLIP's ViT-B image encoders, frozen: tokens as four feature maps of one size."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.clip_weights import CLIP_MEAN, CLIP_STD, image_tower, read_clip
from derain.models.encoders.frozen_encoder import FrozenEncoder, Taps
from derain.models.encoders.random_weights import randomise_transformer
from derain.models.shapes import ImageBatch
from derain.models.weights import load_strictly


class CLIPViTEncoder(FrozenEncoder):
    """The tokens of a CLIP-ViT after each quarter of its blocks, as four maps of one size.

    F1 to F4 are the outputs of blocks 3, 6, 9 and 12 of 12 without the class token, arranged on
    the grid of patches: `width` channels at H/patch. The position embedding, made for 224 px, is
    resampled to the grid (bicubic). CLIP's mean and standard deviation are applied inside.

    Not stated in the paper (FCLIP-UNet, Table 6): which blocks it takes, and how it brings them to
    the sizes of a U-Net; for the latter see `fclip_unet.TokenAdapter`. The memory of the attention
    is linear in the number of tokens, its time is not: a 512x512 image has 1,024 tokens at patch
    16.

    `weights`: "random" (drawn with `seed`, for tests and demos), a tag in `clip_weights.TAGS`, or
    a file as for `CLIPResNetEncoder`, of a model with QuickGELU like OpenAI's.

    Source: Radford et al., ICML 2021; Dosovitskiy et al., ICLR 2021.

    Raises FileNotFoundError if the weights are not available, ValueError if they do not fit.
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
        """
        patch: pixels per side of a patch.
        layers: the number of blocks, a single multiple of 4.
        width: channels of a token.
        """
        if len(layers) != 1 or layers[0] < 4 or layers[0] % 4:
            raise ValueError(f"layers of a ViT must be one multiple of 4, got {tuple(layers)}")
        super().__init__((width,) * 4, (patch,) * 4, drifts=False)
        self.vit = _vit(patch, layers[0], width)
        if weights == "random":
            self.vit.to_empty(device="cpu")
            randomise_transformer(self.vit, torch.Generator().manual_seed(seed))
        else:
            tensors, path = read_clip(f"ViT-B-{patch}", weights)
            load_strictly(self.vit, image_tower(tensors, ("ln_post.", "proj")), path)
        self.requires_grad_(False)
        self.train()

    def features(self, x: ImageBatch) -> Taps:
        """F1 to F4: NCHW RGB in [0, 1] -> `width` channels at H/patch, raw block outputs."""
        net: Any = self.vit  # open_clip's classes have no type annotations
        patches = net.conv1(self.normalise(x))
        grid = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        class_token = net.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        positions = _resample(net.positional_embedding, grid).to(tokens.dtype)
        tokens = net.ln_pre(torch.cat((class_token, tokens), dim=1) + positions)
        taps = []
        blocks = net.transformer.resblocks
        for number, block in enumerate(blocks, start=1):
            tokens = block(tokens)
            if number % (len(blocks) // 4) == 0:
                taps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
        f1, f2, f3, f4 = taps
        return f1, f2, f3, f4


def _resample(
    positions: Float[Tensor, "tokens width"], grid: Sequence[int]
) -> Float[Tensor, "new_tokens width"]:
    """Resize the position embedding from a square of patches to `grid`; the class keeps its own."""
    side = round((positions.shape[0] - 1) ** 0.5)
    if (side, side) == tuple(grid):
        return positions
    square = positions[1:].unflatten(0, (side, side)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(square, tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat((positions[:1], resized[0].flatten(1).T))


def _vit(patch: int, layers: int, width: int) -> nn.Module:
    """The image tower of open_clip's CLIP for 224 px, without its head, on the meta device."""
    from open_clip.transformer import QuickGELU, VisionTransformer  # takes seconds to import

    with torch.device("meta"):
        net = VisionTransformer(
            224, patch, width, layers, max(1, width // 64), 4.0, act_layer=QuickGELU
        )
    del net.ln_post, net.proj
    return net
