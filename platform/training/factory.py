"""Builds the network and loss of a config, with initial weights or those of a checkpoint."""

import itertools
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from derain.config import Config
from derain.config.loss import LossConfig, OwnScheduleConfig
from derain.errors import ConfigError, WeightsError
from derain.inference.predictor import check_trust
from derain.models import CLIPRPN, build, fingerprint, frozen_modules, is_user_defined
from derain.models.cost import cost
from derain.models.losses.loss_schedule import LossSchedule, OwnSchedule
from derain.models.losses.pixel import PIXEL_LOSSES
from derain.models.losses.total_loss import Term, TotalLoss, build_loss
from derain.models.shapes import with_dimensions
from derain.plugins.options import build_plugin, check_options, resolve_plugin
from derain.training.checkpoint import Checkpoint

_LOSS = "loss."
NAMES_OF_TERMS = (
    *("loss", "power", "perceptual", "contrastive", *PIXEL_LOSSES),
    *("train_mae", "train_mse", "train_psnr", "lr", "steps_per_s", "gpu_memory_gib"),
)
"""Names in the metrics of a step that no term of the user's gets."""


def build_network(config: Config) -> nn.Module:
    """The network of a config with its initial weights, which the seed determines.

    Raises WeightsError if pretrained weights are missing or do not fit, ConfigError if a
    user-defined class cannot be imported, does not take the options or fails to build.
    """
    torch.manual_seed(config.seed)
    name, options = config.model.name, config.model.model_dump(exclude={"name"})
    try:
        if is_user_defined(name):
            return _build_user_defined(name, options)
        return build(name, **options)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error


def _build_user_defined(name: str, options: dict[str, Any]) -> nn.Module:
    check_options(name, resolve_plugin(name, "network"), options, "model")
    try:
        return build(name, **options)
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:  # the class's own code
        raise ConfigError(
            f"The network {name} cannot be built with {options}: {type(error).__name__}: {error}"
        ) from error


def start_from(saved: Checkpoint, network: nn.Module) -> None:
    """Load the trained weights of a checkpoint into a network; all experts get those of one.

    Frozen modules keep the network's own weights. Raises WeightsError if the weights do not fit.
    """
    weights = with_dimensions(saved.ema() or saved.model(), network.state_dict())
    if isinstance(network, CLIPRPN):
        weights = network.for_every_expert(weights)
    frozen = tuple(f"{name}." for name in frozen_modules(network))
    own = {name: w for name, w in network.state_dict().items() if name.startswith(frozen)}
    try:
        network.load_state_dict({**own, **weights})
    except RuntimeError as error:
        raise WeightsError(
            f"train.start_from {saved.folder}: its {saved.config.model.name} is not the network of "
            f"this run. Name a checkpoint of a network with the same options. {error}"
        ) from None


def loss_of(config: Config, network: nn.Module) -> TotalLoss:
    """The loss of a config.

    Raises WeightsError if the perceptual network's weights are missing, ConfigError for a term of
    the user's that cannot be built.
    """
    options = config.loss.model_dump(exclude={"schedule", "perceptual_weights", "terms"})
    weights = config.loss.perceptual_weights
    try:
        loss_schedule = schedule_of(config.loss)
        return build_loss(
            network,
            **options,
            schedule=loss_schedule,
            vgg_weights=weights,
            own=own_terms(config.loss),
        )
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error


def schedule_of(loss: LossConfig) -> LossSchedule | OwnSchedule | None:
    """The schedule of `loss.pixel: power`. Raises ConfigError for one of the user's that cannot be
    built."""
    chosen = loss.schedule
    if isinstance(chosen, OwnScheduleConfig):
        own = build_plugin(chosen.kind, chosen.options, what="loss schedule", key="loss.schedule")
        return OwnSchedule(own, chosen.eps)
    return LossSchedule(**chosen.model_dump()) if chosen else None


def own_terms(loss: LossConfig) -> dict[str, tuple[float, Term]]:
    """Weight and term of each of `loss.terms`, by the name of its class; those of one class are
    numbered. Raises ConfigError for one that cannot be built."""
    terms: dict[str, tuple[float, Term]] = {}
    for number, term in enumerate(loss.terms):
        if not term.weight:
            continue
        built = build_plugin(term.name, term.options, what="loss term", key=f"loss.terms.{number}")
        name = term.name.partition(":")[2]
        names = itertools.chain([name], (f"{name}_{copy}" for copy in itertools.count(2)))
        free = next(each for each in names if each not in {*terms, *NAMES_OF_TERMS})
        terms[free] = term.weight, built
    return terms


def without_pretrained(config: Config) -> Config:
    """The config with random instead of pretrained weights, for callers that need sizes only."""
    values: dict[str, object] = {}
    if hasattr(config.model, "encoder_weights"):
        values["model.encoder_weights"] = "random"
    if {config.loss.perceptual, config.loss.contrastive} & {"vgg16", "vgg19"}:
        values["loss.perceptual_weights"] = "random"
    return config.replaced(values, "without pretrained weights")


def describe(config: Config) -> dict[str, Any]:
    """The output of `derainctl train --dry-run --json`; loads no pretrained weights."""
    network = build_network(without_pretrained(config))
    return {"network": asdict(cost(network)), "config": config.model_dump(mode="json")}


def restore_network(saved: Checkpoint, *, trust: bool = False) -> nn.Module:
    """The network of a checkpoint with its trained weights: the moving average if present.

    Raises WeightsError if the frozen modules are not the ones it was trained with, UsageError for a
    user-defined class without `trust`, because its code would run.
    """
    check_trust(saved.config.model.name, saved.folder, trust)
    network = build_network(saved.config)
    check_frozen(saved, network)
    present = network.state_dict()
    trained = with_dimensions(saved.ema() or saved.model(), present)
    network.load_state_dict({**present, **trained})
    return network.eval()


def fingerprints(network: nn.Module, loss: TotalLoss | None = None) -> dict[str, str]:
    """Digests of the frozen modules by name; those of the loss have the prefix `loss.`."""
    parts = frozen_modules(network)
    if loss is not None:
        parts |= {f"{_LOSS}{name}": part for name, part in frozen_modules(loss).items()}
    return {name: fingerprint(part) for name, part in parts.items()}


def check_frozen(saved: Checkpoint, network: nn.Module, loss: TotalLoss | None = None) -> None:
    """Raise WeightsError if frozen modules differ from those of a checkpoint.

    Give `loss` to continue training; leave it out to use the network only.
    """
    actual, expected = fingerprints(network, loss), dict(saved.state.frozen)
    if loss is None:
        expected = {name: sha for name, sha in expected.items() if not name.startswith(_LOSS)}
    if actual != expected:
        raise WeightsError(
            f"{saved.folder}: it was trained with the frozen parts {expected}, but the present "
            f"ones are {actual}. Use the pretrained weights that the run started with."
        )
