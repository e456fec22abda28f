"""The networks by name, and which of their parameters are trained."""

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
from derain.plugins.resolve import is_plugin, resolve

MODELS: dict[str, type[nn.Module]] = {
    "fclip_unet": FCLIPUNet,
    "clip_rpn": CLIPRPN,
    "rdmc": RDMC,
    "prenet": PReNet,
    "mprnet": MPRNet,
    "restormer": Restormer,
    "nafnet": NAFNet,
}
"""Networks take keyword options and map NCHW RGB, float32 in [0, 1], to the same. Each has

stride      int; height and width of an image must be multiples of it, or `forward` raises
            ValueError
frozen      tuple[str, ...]; the names of the sub-modules that never change
auxiliary   dict[str, float], only with loss terms of its own (rain masks, for example): the weight
            of each term; called with `clean=`, the network then returns (image, {term: scalar})
perceive    only with experts: perceive(images) returns the index of the expert for each whole
            image, which `forward` accepts as `route=`
route_key   str | None, only with experts: a digest of everything but the image that the result
            of `perceive` depends on
"""

__all__ = [
    "CLIPRPN",
    "MODELS",
    "build",
    "fingerprint",
    "frozen_modules",
    "is_plugin",
    "is_user_defined",
    "trained_parameters",
    "user_defined_class",
]


def build(name: str, **options: object) -> nn.Module:
    """Build the network `MODELS[name]`, or the user-defined class `module:Class`.

    A user-defined class is an nn.Module with the attributes that `MODELS` describes; without a
    `stride` it gets 1. Its module is imported, which runs its code.

    Raises ValueError for an unknown name or invalid options, FileNotFoundError if pretrained
    weights are missing.
    """
    if is_user_defined(name):
        network: Any = user_defined_class(name)(**options)
        if not hasattr(network, "stride"):
            network.stride = 1
        if not isinstance(network.stride, int) or network.stride < 1:
            raise ValueError(
                f"The network {name} has the stride {network.stride!r}; expected a whole number "
                "above 0, because height and width of an image are padded to multiples of it."
            )
        return network
    if name not in MODELS:
        raise ValueError(
            f"The network must be one of {', '.join(MODELS)}, or module:Class, got {name!r}"
        )
    return MODELS[name](**options)


is_user_defined = is_plugin
"""Whether the name of a network refers to a user-defined class, `module:Class`. Loaders in models
that were registered before use either name, if this package is imported before they are."""


def user_defined_class(name: str) -> type[nn.Module]:
    """The class `module:Class`; its module is imported, which runs its code.

    Raises ValueError if it cannot be imported or is not a subclass of torch.nn.Module.
    """
    network = resolve(name)
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise ValueError(f"The network {name} is not a subclass of torch.nn.Module")
    return network


def frozen_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The sub-modules named in `network.frozen`, by name; empty for a module without `frozen`.

    Optimiser, moving average and checkpoint leave them out; a checkpoint records their
    `fingerprint` instead.
    """
    return {name: network.get_submodule(name) for name in getattr(network, "frozen", ())}


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters for the optimiser: those that require a gradient, in the network's order."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}
