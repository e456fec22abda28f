"""torchvision's ImageNet ResNet-50 up to its third residual stage, frozen, as feature maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from derain.models.encoders.frozen_encoder import FrozenEncoder, Taps
from derain.models.encoders.random_weights import randomise_resnet
from derain.models.shapes import ImageBatch
from derain.models.weights import download_torchvision, load_strictly, read_state_dict

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_TAGS = ("IMAGENET1K_V1", "IMAGENET1K_V2")
"""torchvision's names of its ResNet-50 weights. Not stated in the paper: which of them it uses."""


class ImageNetResNetEncoder(FrozenEncoder):
    """Stem, layer1, layer2 and layer3 of torchvision's ResNet-50, trained to classify ImageNet.

        F1    64 channels  H/2   the 7x7 convolution, before the max-pool
        F2   256 channels  H/4   max-pool and layer1
        F3   512 channels  H/8   layer2
        F4  1024 channels  H/16  layer3

    Its feature maps thus have the channels and sizes of CLIP-RN50's. ImageNet's mean and standard
    deviation are applied inside, and its BatchNorms use their running statistics. Not stated in
    the paper (FCLIP-UNet): how its own ImageNet encoder was fed. Its 16.53 dB (Table 6) is below
    what an untrained encoder gives, so it is not a value to reproduce.

    `weights`: "random" (drawn with `seed`), a name in `IMAGENET_TAGS` (downloaded by torchvision),
    or the path of a .safetensors file or a state-dict .pt file with torchvision's names.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Raises FileNotFoundError if the weights are not available, ValueError if they do not fit.
    """

    mean_std = (IMAGENET_MEAN, IMAGENET_STD)

    def __init__(self, weights: str, layers: Sequence[int] = (3, 4, 6, 3), seed: int = 0) -> None:
        """layers: blocks of layer1, layer2 and layer3; a fourth number, layer4, is ignored."""
        super().__init__((64, 256, 512, 1024), (2, 4, 8, 16), drifts=False)
        self.resnet = _stem_to_layer3(layers)
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

    def features(self, x: ImageBatch) -> Taps:
        """F1 to F4: NCHW RGB in [0, 1] -> non-negative feature maps."""
        net: Any = self.resnet  # torchvision's classes have no type annotations
        f1 = net.relu(net.bn1(net.conv1(self.normalise(x))))
        f2 = net.layer1(net.maxpool(f1))
        f3 = net.layer2(f2)
        return f1, f2, f3, net.layer3(f3)


def _stem_to_layer3(layers: Sequence[int]) -> nn.Module:
    """torchvision's ResNet without layer4 and the classifier, on the meta device: no values."""
    if len(layers) not in (3, 4):
        raise ValueError(
            "layers must be the number of blocks of layer1 to layer3 (a fourth number, layer4, is "
            f"accepted and ignored), got {tuple(layers)}"
        )
    from torchvision.models.resnet import Bottleneck, ResNet  # takes seconds to import

    with torch.device("meta"):
        net = ResNet(Bottleneck, [*layers[:3], 1])
    del net.layer4, net.avgpool, net.fc
    return net


def _read_imagenet(weights: str) -> dict[str, Tensor]:
    if weights in IMAGENET_TAGS:
        return download_torchvision("resnet50", weights, "set encoder_weights=/path/to/that/file")
    return read_state_dict(weights)
