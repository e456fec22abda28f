"""The networks by name, and which of their parts are trained."""

import importlib
from typing import Any

from torch import nn

from derain.models.fingerprints import fingerprint
from derain.models.networks.clip_rpn import CLIPRPN
from derain.models.networks.fclip_unet import FCLIPUNet
from derain.models.networks.mprnet import MPRNet
from derain.models.networks.nafnet import NAFNet
from derain.models.networks.prenet import PReNet
from derain.models.networks.rdmc import RDMC
from derain.models.networks.restormer import Restormer

MODELS: dict[str, type[nn.Module]] = {
    "fclip_unet": FCLIPUNet,
    "clip_rpn": CLIPRPN,
    "rdmc": RDMC,
    "prenet": PReNet,
    "mprnet": MPRNet,
    "restormer": Restormer,
    "nafnet": NAFNet,
}
"""Every network takes keyword options, has `stride: int` (height and width of an image must be
multiples of it; `forward` raises ValueError otherwise) and `frozen: tuple[str, ...]`, the names of
its sub-modules that never change. A network with loss terms of its own (rain masks, say) has
`auxiliary: dict[str, float]`, the weight of each, and returns (image, {term: scalar}) when it is
called with `clean=`. One with experts has `perceive(images)`, the number of each whole image's
expert, takes it back as `route=`, and has `route_key: str | None`, a digest of what decides it."""

__all__ = [
    "CLIPRPN",
    "MODELS",
    "build",
    "fingerprint",
    "frozen_modules",
    "is_plugin",
    "trained_parameters",
]


def build(name: str, **options: object) -> nn.Module:
    """The network `MODELS[name]`, or the class `module:Class` of the user's, with these options.

    Such a class is an nn.Module from NCHW RGB in [0, 1] to the same; its module is imported, which
    runs its code. What `MODELS` says of networks holds for it too; `stride` is 1 where it has none.

    Raises ValueError for an unknown name or unfitting options, FileNotFoundError where pretrained
    weights are missing.
    """
    if is_plugin(name):
        network: Any = _plugin(name)(**options)
        if not hasattr(network, "stride"):
            network.stride = 1
        if not isinstance(network.stride, int):
            raise ValueError(
                f"The network {name} has the stride {network.stride!r}; expected a whole number: "
                "height and width of an image are made multiples of it."
            )
        return network
    if name not in MODELS:
        raise ValueError(
            f"Expected one of the networks {', '.join(MODELS)}, or module:Class, got {name!r}"
        )
    return MODELS[name](**options)


def is_plugin(name: str) -> bool:
    """Whether a network's name is that of a class of the user's, `module:Class`."""
    return ":" in name


def _plugin(name: str) -> type[nn.Module]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"The network {name} cannot be imported ({error}). Install its package, or put its "
            "folder on PYTHONPATH, here and on every worker."
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"The network {name} is no class of networks (torch.nn.Module)")
    return found


def frozen_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The sub-modules that `network.frozen` names, by name; none for a module without it.

    They are left out of optimiser, moving average and checkpoint; a checkpoint records their
    `fingerprint` instead.
    """
    return {name: network.get_submodule(name) for name in getattr(network, "frozen", ())}


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """What an optimiser gets: the parameters that require a gradient, in the network's order."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}
