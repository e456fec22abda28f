"""Images as a network that was trained elsewhere sees them, to measure distances in."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from derain.models.encoders.by_name import IMAGENET_MEAN, IMAGENET_STD
from derain.models.encoders.clip import fill_uniform
from derain.models.encoders.frozen import FrozenEncoder
from derain.models.shapes import ImageBatch
from derain.models.weights import download_torchvision, load_strictly, read_state_dict

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""In each block, each followed by a ReLU; a max-pool ends a block."""

_REMEDY = (
    "give its path as loss.perceptual_weights (the option encoder needs no weights of its own; "
    "none switches the term off)"
)


class VGGFeatures(nn.Module):
    """Feature maps of VGG after the named ReLUs, such as "relu1_2": the second of the first block.

    Images are normalised as for ImageNet inside. Nothing here is trained; layers behind the last
    one that is named are not built.

    `weights`: "imagenet" (torchvision's IMAGENET1K_V1, downloaded), the path of a .safetensors or
    state dict .pt file with torchvision's names (it may end after the last layer used), or
    "random" (always the same ones, for tests; no perceptual meaning).

    Source: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015.

    Raises FileNotFoundError where weights cannot be had, ValueError where they do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arch: str, layers: Sequence[str], weights: str = "imagenet") -> None:
        super().__init__()
        if arch not in CONVOLUTIONS:
            raise ValueError(f"arch is one of {', '.join(CONVOLUTIONS)}, got {arch!r}")
        known = relu_positions(CONVOLUTIONS[arch])
        if not layers or not set(layers) <= known.keys():
            raise ValueError(f"{arch} has the layers {', '.join(known)}, got {tuple(layers)}")
        self.taps = tuple(known[name] for name in layers)
        # in the state: the fingerprint is to tell two apart that look at other layers
        self.register_buffer("layers", torch.tensor(self.taps))
        self.features = _vgg_layers(arch, max(self.taps) + 1)
        _fill_vgg(self.features, arch, weights)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), False)
        self.requires_grad_(False)

    def forward(self, x: ImageBatch) -> list[Tensor]:
        """NCHW RGB in [0, 1] -> one map for each layer, in the order in which they were named."""
        x = (x - self.mean) / self.std
        found = {}
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in self.taps:
                found[position] = x
        return [found[position] for position in self.taps]


class EncoderFeatures(nn.Module):
    """F1 to F4 of the encoder of the network that is trained, those that are named.

    The encoder belongs to the network: it is no sub-module here, so it moves with the network and
    appears in no state dict of the loss.

    Raises ValueError for an encoder that is not frozen: its target would move as it trains.
    """

    def __init__(
        self, encoder: FrozenEncoder, layers: Sequence[str] = ("F1", "F2", "F3", "F4")
    ) -> None:
        super().__init__()
        if encoder.drifts:
            raise ValueError("A loss on the encoder's features needs encoder_bn_mode=frozen")
        self._encoder = (encoder,)  # a tuple hides it from nn.Module
        self._taps = [("F1", "F2", "F3", "F4").index(name) for name in layers]

    def forward(self, x: ImageBatch) -> list[Tensor]:
        """NCHW RGB in [0, 1], H and W multiples of the encoder's stride -> its maps."""
        (encoder,) = self._encoder
        maps = encoder.features(x) if torch.is_grad_enabled() else encoder(x)
        return [maps[tap] for tap in self._taps]


def relu_positions(convolutions: Sequence[int]) -> dict[str, int]:
    """Where torchvision's `features` of a VGG have their ReLUs: {"relu1_1": 1, ...}."""
    positions, at = {}, 0
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            positions[f"relu{block}_{number}"] = at + 1
            at += 2
        at += 1  # the max-pool
    return positions


def _vgg_layers(arch: str, count: int) -> nn.Sequential:
    """The first `count` layers of torchvision's VGG, on the meta device: no values, no memory."""
    import torchvision  # seconds to import

    with torch.device("meta"):
        network = torchvision.models.get_model(arch, weights=None, init_weights=False)
    layers = network.features[:count]
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # it would overwrite a map that is still to be compared
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
