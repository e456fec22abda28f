"""Builds the optimiser of a run: one of torch's by its name, or a class of the user's."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from derain.config.training import Optimizer, TrainConfig
from derain.errors import ConfigError
from derain.plugins.options import check_options, constructed, resolve_plugin, takes
from derain.plugins.resolve import is_plugin

KEY = "train.optimizer"
KIND = "optimiser"
FUSED = ("adamw", "adam")
"""Those of torch whose step can be one operation for all weights on CPU and GPU, also with fsdp2,
for which torch 2.15 has no such step of SGD."""


def build_optimizer(
    train: TrainConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser of a config for these parameters.

    It is given `train.lr`, and `train.betas` and `train.weight_decay` if it takes them and its
    options do not set them. Raises ConfigError for options that it does not take, one that the
    installed torch lacks, and weights that it refuses, as Muon does any but matrices. Raises
    ValueError if there are no weights.
    """
    chosen, weights = train.optimizer, list(parameters)
    if not weights:
        raise ValueError("optimizer got an empty parameter list")
    kind = _class_of(chosen)
    check_options(chosen.name, kind, chosen.options, KEY, given=("params", "lr"))
    values = _values(train, kind)
    built = constructed(chosen.name, kind, values, weights, what=KIND)
    if not isinstance(built, torch.optim.Optimizer):
        raise ConfigError(
            f"The {KIND} {chosen.name}: expected a subclass of torch.optim.Optimizer, found "
            f"{type(built).__name__}."
        )
    return built


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any], train: TrainConfig) -> None:
    """Take over a state dict, but for what the config says: a member of a population goes on from
    the checkpoint of another one with values of its own."""
    optimizer.load_state_dict(state)
    values = _values(train, _class_of(train.optimizer))
    for group in optimizer.param_groups:
        group.update({key: value for key, value in values.items() if key in group})


def _values(train: TrainConfig, kind: Any) -> dict[str, Any]:
    """The options that an optimiser is built with, by the config alone."""
    values: dict[str, Any] = {"lr": train.lr}
    for option in ("betas", "weight_decay"):
        if takes(kind, option):
            values[option] = getattr(train, option)
    if train.optimizer.name in FUSED:
        values["fused"] = True
    return {**values, **train.optimizer.options}


def _class_of(chosen: Optimizer) -> Any:
    if is_plugin(chosen.name):
        return resolve_plugin(chosen.name, KIND)
    names = {name.lower(): name for name in vars(torch.optim)}
    if chosen.name not in names:
        has = ", ".join(name for name in Optimizer.known if name in names)
        raise ConfigError(
            f"`{KEY}`: torch {torch.__version__} has no {chosen.name}. It has {has}; or name a "
            "class, module:Name."
        )
    return getattr(torch.optim, names[chosen.name])
