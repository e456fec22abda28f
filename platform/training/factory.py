"""Config -> network and loss, with their first weights or those of a checkpoint."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from derain.config import Config
from derain.errors import WeightsError
from derain.inference.predictor import check_trust
from derain.models import CLIPRPN, build, fingerprint, frozen_modules
from derain.models.cost import cost
from derain.models.losses.derain_loss import DerainLoss, build_loss
from derain.models.losses.schedules import Schedule
from derain.training.checkpoint import Checkpoint

_LOSS = "loss."


def build_network(config: Config) -> nn.Module:
    """The network of a config with its first weights, which the seed decides.

    Raises WeightsError where pretrained weights are missing or do not fit.
    """
    torch.manual_seed(config.seed)
    options = config.model.model_dump(exclude={"name"})
    try:
        return build(config.model.name, **options)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error


def start_from(saved: Checkpoint, network: nn.Module) -> None:
    """Give a network the trained weights of a checkpoint, those of one expert to all experts.

    What is frozen stays the network's own. Raises WeightsError where the weights do not fit.
    """
    weights = saved.ema() or saved.model()
    if isinstance(network, CLIPRPN):
        weights = network.for_every_expert(weights)
    frozen = tuple(f"{name}." for name in frozen_modules(network))
    own = {name: w for name, w in network.state_dict().items() if name.startswith(frozen)}
    try:
        network.load_state_dict({**own, **weights})
    except RuntimeError as error:
        raise WeightsError(
            f"train.start_from {saved.folder}: its {saved.config.model.name} is not the network of "
            f"this run. Name a checkpoint of one with the same options. {error}"
        ) from None


def loss_of(config: Config, network: nn.Module) -> DerainLoss:
    """The loss of a config. Raises WeightsError where the perceptual network's are missing."""
    options = config.loss.model_dump(exclude={"schedule", "perceptual_weights"})
    schedule, weights = config.loss.schedule, config.loss.perceptual_weights
    try:
        made = Schedule(**schedule.model_dump()) if schedule else None
        return build_loss(network, **options, schedule=made, vgg_weights=weights)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error


def without_weights(config: Config) -> Config:
    """The config with random weights for all that is pretrained: for what needs sizes alone."""
    values: dict[str, object] = {}
    if hasattr(config.model, "encoder_weights"):
        values["model.encoder_weights"] = "random"
    if {config.loss.perceptual, config.loss.contrastive} & {"vgg16", "vgg19"}:
        values["loss.perceptual_weights"] = "random"
    return config.replaced(values, "without weights")


def describe(config: Config) -> dict[str, Any]:
    """What `derainctl train --dry-run --json` prints; no pretrained weights are loaded for it."""
    network = build_network(without_weights(config))
    return {"network": asdict(cost(network)), "config": config.model_dump(mode="json")}


def restore_network(saved: Checkpoint, *, trust: bool = False) -> nn.Module:
    """The network of a checkpoint with its trained weights: the average where there is one.

    Raises WeightsError when the frozen parts are not those that it was trained with, UsageError for
    a class of somebody's, whose code would run, without `trust`.
    """
    check_trust(saved.config.model.name, saved.folder, trust)
    network = build_network(saved.config)
    check_frozen(saved, network)
    trained = saved.ema() or saved.model()
    network.load_state_dict({**network.state_dict(), **trained})
    return network.eval()


def fingerprints(network: nn.Module, loss: DerainLoss | None = None) -> dict[str, str]:
    """What tells frozen parts apart: name of the module to digest, `loss.` before a loss's own."""
    parts = frozen_modules(network)
    if loss is not None:
        parts |= {f"{_LOSS}{name}": part for name, part in frozen_modules(loss).items()}
    return {name: fingerprint(part) for name, part in parts.items()}


def check_frozen(saved: Checkpoint, network: nn.Module, loss: DerainLoss | None = None) -> None:
    """Raise WeightsError where frozen parts are not those of a checkpoint.

    `loss` matters to who trains on, and is left out to use the network.
    """
    here, there = fingerprints(network, loss), dict(saved.state.frozen)
    if loss is None:
        there = {name: digest for name, digest in there.items() if not name.startswith(_LOSS)}
    if here != there:
        raise WeightsError(
            f"{saved.folder}: its frozen parts were {there}, the ones here are {here}. "
            "Use the pretrained weights that the run began with."
        )
