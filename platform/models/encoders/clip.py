"""The image encoder of CLIP-RN50 up to its third residual stage, frozen, as four feature maps."""

import math
import urllib.error
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from derain.models.encoders.frozen import FrozenEncoder, Taps
from derain.models.weights import load_strictly, read_state_dict

BNMode = Literal["frozen", "clip_denoising"]

TAGS = {
    "RN50": ("openai", "yfcc15m", "cc12m"),
    "ViT-B-32": ("openai", "laion400m_e32"),
    "ViT-B-16": ("openai",),
}
"""open_clip's tags that are known to be of the architecture built here."""

# The statistics that CLIP normalises its input with (github openai/CLIP, clip.py): RGB in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class CLIPResNetEncoder(FrozenEncoder):
    """Stem, layer1, layer2 and layer3 of CLIP's ModifiedResNet, without layer4 and the pooling.

    From NCHW RGB in [0, 1] with H and W multiples of 16 to (width 64 gives CLIP-RN50):

        F1  width channels     H/2   the three stem convolutions, before the average pool
        F2  4 width channels   H/4   average pool and layer1
        F3  8 width channels   H/8   layer2
        F4  16 width channels  H/16  layer3

    `weights`: "random" (made from `seed`, for tests and demos), a tag in `TAGS` (downloaded by
    open_clip), or the path of a .safetensors or state dict .pt file, whose names may begin with
    `visual.`. CLIP's mean and standard deviation are applied inside. No parameter is trained.

    `bn_mode="frozen"` keeps the module in evaluation mode whatever `train()` is told, so that its
    state never changes. `bn_mode="clip_denoising"` does what the public code of CLIPDenoising
    does: `train()` reaches the BatchNorms, which then use the statistics of the batch while their
    running statistics drift, so results depend on batch size and number of workers. (That code
    also leaves out CLIP's normalisation; this mode does not.)

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021; taps as in CLIPDenoising, Cheng et al., CVPR 2024.

    Raises FileNotFoundError where weights cannot be had, ValueError where they do not fit.
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
        if bn_mode not in ("frozen", "clip_denoising"):
            raise ValueError(f"bn_mode is frozen or clip_denoising, got {bn_mode!r}")
        channels = (width, 4 * width, 8 * width, 16 * width)
        super().__init__(channels, (2, 4, 8, 16), drifts=bn_mode == "clip_denoising")
        self.resnet = _stem_to_layer3(layers, width)
        _fill(self.resnet, weights, seed)
        self.requires_grad_(False)
        self.train()

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Taps:
        """F1 to F4: NCHW RGB in [0, 1] -> non-negative feature maps."""
        net: Any = self.resnet  # open_clip's classes carry no types
        x = net.act1(net.bn1(net.conv1(self.normalise(x))))
        x = net.act2(net.bn2(net.conv2(x)))
        f1 = net.act3(net.bn3(net.conv3(x)))
        f2 = net.layer1(net.avgpool(f1))
        f3 = net.layer2(f2)
        return f1, f2, f3, net.layer3(f3)


def _stem_to_layer3(layers: Sequence[int], width: int) -> nn.Module:
    """open_clip's ModifiedResNet without layer4 and attention pooling, on the meta device.

    On "meta" nothing is allocated and no random number is drawn; `_fill` brings the values.
    """
    if len(layers) not in (3, 4) or width % 2:
        raise ValueError(
            "Expected the number of blocks of layer1 to layer3 (a fourth number, layer4, is "
            f"accepted and not built) and an even width, got layers={layers}, width={width}"
        )
    from open_clip.modified_resnet import ModifiedResNet  # seconds to import

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
    load_strictly(net, visual_part(tensors, ("layer4.", "attnpool.")), path)


def read_clip(arch: str, weights: str) -> tuple[dict[str, Tensor], str]:
    """The state dict of a whole CLIP, and its file: open_clip's `arch` by tag, or a local file.

    Raises FileNotFoundError where it cannot be had, ValueError where the file is something else.
    """
    path = _download(arch, weights) if weights in TAGS[arch] else weights
    try:
        return read_state_dict(path), path
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"encoder_weights={weights!r} is neither 'random' nor one of the tags "
            f"{', '.join(TAGS[arch])} nor a file. {error}"
        ) from None


def visual_part(tensors: dict[str, Tensor], unused: tuple[str, ...]) -> dict[str, Tensor]:
    """The image tower of a CLIP state dict, less the parts that are not built."""
    prefix = "visual." if any(name.startswith("visual.") for name in tensors) else ""
    tower = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {k: v for k, v in tower.items() if not k.startswith(unused)}


def _download(arch: str, tag: str) -> str:
    """The local path of open_clip's weights; a copy in its cache needs no network."""
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    source = get_pretrained_cfg(arch, tag)
    try:
        return download_pretrained(source)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise FileNotFoundError(
            f"The CLIP {arch} weights {tag!r} are not in the cache and could not be downloaded "
            f"from the Hugging Face repository {source['hf_hub'].rstrip('/')}: {error} Download "
            "open_clip_model.safetensors from there on a machine with a network, copy it here and "
            "set encoder_weights=/path/to/open_clip_model.safetensors. (encoder_weights=random "
            "builds an untrained one; it is not CLIP.)"
        ) from error


def randomise_resnet(net: nn.Module, generator: torch.Generator) -> None:
    """Kaiming-uniform convolutions and BatchNorms with mean 0 and variance 1.

    Where a shortcut is projected, it and the residual branch carry half of the variance each;
    elsewhere the branch adds a sixteenth. So the maps keep a standard deviation of order 1
    however deep the encoder.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            fill_uniform(module.weight, 2.0, generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.constant_(module.weight, _gain(name))
            nn.init.zeros_(module.bias)


def _gain(batch_norm: str) -> float:
    """The weight of a BatchNorm with this name, such as `layer2.1.bn3`."""
    if batch_norm.endswith(("0.bn3", "0.downsample.1")):
        return math.sqrt(0.5)
    return 0.25 if batch_norm.endswith(".bn3") else 1.0


def randomise_transformer(net: nn.Module, generator: torch.Generator) -> None:
    """Uniform weights with variance 1 / fan-in, so that scales are kept; norms as the identity."""
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() < 2 and "embedding" not in name:
            nn.init.ones_(parameter)  # weights of LayerNorms, and logit_scale, which is not used
        else:
            fill_uniform(parameter, 1.0, generator)


@torch.no_grad()
def fill_uniform(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Uniform numbers of variance `gain` / fan-in, whose bits are the same on every CPU: whole
    numbers and one product. Those of torch's initialisers depend on the CPU's kind.
    """
    bound = math.sqrt(3.0 * gain / max(1, weight[0].numel()))
    numbers = torch.randint(-(2**23), 2**23, weight.shape, generator=generator)
    weight.copy_(numbers).mul_(bound / 2**23)
