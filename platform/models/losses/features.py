"""Feature maps for the perceptual and contrastive loss: of a VGG, or of the network's encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from derain.models.encoders.frozen_encoder import FrozenEncoder
from derain.models.encoders.imagenet_resnet import IMAGENET_MEAN, IMAGENET_STD
from derain.models.encoders.random_weights import fill_uniform
from derain.models.shapes import ImageBatch
from derain.models.weights import download_torchvision, load_strictly, read_state_dict

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions per block, each followed by a ReLU; each block ends with a max-pool."""

_REMEDY = (
    "set loss.perceptual_weights to its path (the option encoder needs no weights of its own; "
    "none switches the term off)"
)


class VGGFeatures(nn.Module):
    """Feature maps of VGG after the named ReLUs, such as "relu1_2": the second of the first block.

    ImageNet's mean and standard deviation are applied inside. Nothing is trained; layers after the
    last named one are not built.

    `weights`: "imagenet" (torchvision's IMAGENET1K_V1, downloaded), the path of a .safetensors file
    or a state-dict .pt file with torchvision's names (layers after the last one used may be
    missing), or "random" (for tests; always the same values, without perceptual meaning).

    Source: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015.

    Raises FileNotFoundError if the weights are not available, ValueError for unknown names or
    weights that do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arch: str, layers: Sequence[str], weights: str = "imagenet") -> None:
        super().__init__()
        if arch not in CONVOLUTIONS:
            raise ValueError(f"arch must be one of {', '.join(CONVOLUTIONS)}, got {arch!r}")
        known = relu_positions(CONVOLUTIONS[arch])
        if not layers or not set(layers) <= known.keys():
            raise ValueError(
                f"layers must be some of {', '.join(known)} for {arch}, got {tuple(layers)}"
            )
        self.taps = tuple(known[name] for name in layers)
        # part of the state dict, so that the fingerprint differs for other layers
        self.register_buffer("layers", torch.tensor(self.taps))
        self.features = _vgg_layers(arch, max(self.taps) + 1)
        _fill_vgg(self.features, arch, weights)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), False)
        self.requires_grad_(False)

    def forward(self, x: ImageBatch) -> list[Tensor]:
        """NCHW RGB in [0, 1] -> one map per layer, NCHW, in the order of `layers`."""
        x = (x - self.mean) / self.std
        maps = {}
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in self.taps:
                maps[position] = x
        return [maps[position] for position in self.taps]


class EncoderFeatures(nn.Module):
    """The named feature maps, of F1 to F4, of the trained network's own frozen encoder.

    The encoder belongs to the network and is not a sub-module here: it moves between devices with
    the network, and the loss's state dict does not contain it.

    Raises ValueError for an encoder that drifts: the target of the loss would change in training.
    """

    def __init__(
        self, encoder: FrozenEncoder, layers: Sequence[str] = ("F1", "F2", "F3", "F4")
    ) -> None:
        super().__init__()
        if encoder.drifts:
            raise ValueError("A loss on the encoder's features requires encoder_bn_mode=frozen")
        self._encoder = (encoder,)  # a tuple hides it from nn.Module
        self._indices = [("F1", "F2", "F3", "F4").index(name) for name in layers]

    def forward(self, x: ImageBatch) -> list[Tensor]:
        """NCHW RGB in [0, 1], H and W multiples of the encoder's stride -> one map per layer."""
        (encoder,) = self._encoder
        maps = encoder.features(x) if torch.is_grad_enabled() else encoder(x)
        return [maps[index] for index in self._indices]


def relu_positions(convolutions: Sequence[int]) -> dict[str, int]:
    """The index of each ReLU in torchvision's `features` of a VGG: {"relu1_1": 1, ...}."""
    positions, index = {}, 0
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            positions[f"relu{block}_{number}"] = index + 1
            index += 2
        index += 1  # the max-pool
    return positions


def _vgg_layers(arch: str, count: int) -> nn.Sequential:
    """The first `count` layers of torchvision's VGG, on the meta device: no values, no memory."""
    import torchvision  # takes seconds to import

    with torch.device("meta"):
        network = torchvision.models.get_model(arch, weights=None, init_weights=False)
    layers = network.features[:count]
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # in place, it would overwrite a map that is compared later
    return layers


def _fill_vgg(features: nn.Sequential, arch: str, weights: str) -> None:
    if weights == "random":
        features.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for parameter in features.parameters():
            if parameter.dim() > 1:
                fill_uniform(parameter, 2.0, generator)
            else:
                nn.init.zeros_(parameter)
        return
    if weights == "imagenet":
        tensors = download_torchvision(arch, "IMAGENET1K_V1", _REMEDY)
    else:
        tensors = read_state_dict(weights)
    positions = {name.split(".")[0] for name in features.state_dict()}
    prefixed = {k.removeprefix("features."): v for k, v in tensors.items() if "features." in k}
    used = {k: v for k, v in prefixed.items() if k.split(".")[0] in positions}
    load_strictly(features, used, f"{arch} {weights}")
