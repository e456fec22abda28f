"""Config -> network and loss, with their first weights or those of a checkpoint."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from derain.checkpoint import Checkpoint
from derain.config import Config
from derain.errors import WeightsError
from derain.models import build, fingerprint, frozen_modules
from derain.models.cost import cost
from derain.models.losses import DerainLoss, build_loss
from derain.models.schedules import Schedule
from derain.predictor import check_trust


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
    check_frozen(network, saved)
    trained = saved.ema() or saved.model()
    network.load_state_dict({**network.state_dict(), **trained})
    return network.eval()


def fingerprints(network: nn.Module) -> dict[str, str]:
    """What tells a network's frozen parts apart: name of the module to digest."""
    return {name: fingerprint(part) for name, part in frozen_modules(network).items()}


def check_frozen(network: nn.Module, saved: Checkpoint) -> None:
    """Raise WeightsError where a network's frozen parts are not those of a checkpoint."""
    here, there = fingerprints(network), dict(saved.state.frozen)
    if here != there:
        raise WeightsError(
            f"{saved.folder}: its frozen parts were {there}, the ones here are {here}. "
            "Use the pretrained weights that the run began with."
        )
