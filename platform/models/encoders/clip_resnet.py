"""CLIP-RN50's image encoder up to its third residual stage, frozen, as four feature maps."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from derain.models.encoders.clip_weights import CLIP_MEAN, CLIP_STD, image_tower, read_clip
from derain.models.encoders.frozen_encoder import FrozenEncoder, Taps
from derain.models.encoders.random_weights import randomise_resnet
from derain.models.shapes import ImageBatch
from derain.models.weights import load_strictly

BNMode = Literal["frozen", "clip_denoising"]


class CLIPResNetEncoder(FrozenEncoder):
    """Stem, layer1, layer2 and layer3 of CLIP's ModifiedResNet, without layer4 and the pooling.

    From NCHW RGB, float32 in [0, 1], H and W multiples of 16, to (width 64 is CLIP-RN50):

        F1  width channels     H/2   the three stem convolutions, before the average pool
        F2  4 width channels   H/4   average pool and layer1
        F3  8 width channels   H/8   layer2
        F4  16 width channels  H/16  layer3

    `weights`: "random" (drawn with `seed`, for tests and demos), a tag in `clip_weights.TAGS`
    (downloaded by open_clip), or the path of a .safetensors file or a state-dict .pt file, whose
    names may start with `visual.`. CLIP's mean and standard deviation are applied inside. No
    parameter is trained.

    `bn_mode="frozen"` keeps the module in evaluation mode even after `train()`, so its state never
    changes. `bn_mode="clip_denoising"` reproduces CLIPDenoising's public code: `train()` applies to
    the BatchNorms, which then use the statistics of the batch while their running statistics
    drift, so results depend on batch size and number of workers. (That code also omits CLIP's
    normalisation; this mode does not.)

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021; feature maps as in CLIPDenoising, Cheng et al., CVPR 2024.

    Raises FileNotFoundError if the weights are not available, ValueError if they do not fit.
    """

    mean_std = (CLIP_MEAN, CLIP_STD)

    def __init__(
        self,
        weights: str,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        bn_mode: BNMode = "frozen",
        seed: int = 0,
    ) -> None:
        """
        layers: blocks of layer1, layer2 and layer3; a fourth number, layer4, is ignored.
        width: channels of F1.
        """
        if bn_mode not in ("frozen", "clip_denoising"):
            raise ValueError(f"bn_mode must be frozen or clip_denoising, got {bn_mode!r}")
        channels = (width, 4 * width, 8 * width, 16 * width)
        super().__init__(channels, (2, 4, 8, 16), drifts=bn_mode == "clip_denoising")
        self.resnet = _stem_to_layer3(layers, width)
        _fill(self.resnet, weights, seed)
        self.requires_grad_(False)
        self.train()

    def features(self, x: ImageBatch) -> Taps:
        """F1 to F4: NCHW RGB in [0, 1] -> non-negative feature maps."""
        net: Any = self.resnet  # open_clip's classes have no type annotations
        x = net.act1(net.bn1(net.conv1(self.normalise(x))))
        x = net.act2(net.bn2(net.conv2(x)))
        f1 = net.act3(net.bn3(net.conv3(x)))
        f2 = net.layer1(net.avgpool(f1))
        f3 = net.layer2(f2)
        return f1, f2, f3, net.layer3(f3)


def _stem_to_layer3(layers: Sequence[int], width: int) -> nn.Module:
    """open_clip's ModifiedResNet without layer4 and attention pooling, on the meta device.

    The meta device allocates nothing and draws no random numbers; `_fill` sets the values.
    """
    if len(layers) not in (3, 4) or width % 2:
        raise ValueError(
            "Expected the number of blocks of layer1 to layer3 (a fourth number, layer4, is "
            f"accepted and ignored) and an even width, got layers={layers}, width={width}"
        )
    from open_clip.modified_resnet import ModifiedResNet  # takes seconds to import

    with torch.device("meta"):
        net = ModifiedResNet([*layers[:3], 1], output_dim=1, heads=1, width=width)
    del net.layer4, net.attnpool
    return net


def _fill(net: nn.Module, weights: str, seed: int) -> None:
    if weights == "random":
        net.to_empty(device="cpu")
        randomise_resnet(net, torch.Generator().manual_seed(seed))
        return
    tensors, path = read_clip("RN50", weights)
    load_strictly(net, image_tower(tensors, ("layer4.", "attnpool.")), path)
