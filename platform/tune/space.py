"""The search space of a sweep -> its trials, each with a whole config that has been checked."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from derain.config import Config
from derain.errors import ConfigError


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    name: str
    """Unique in the sweep; the run's folder."""
    point: str
    """The name of its values, the same for all repeats."""
    params: dict[str, Any]
    """Config key to value."""
    config: Config


def plan(config: Config) -> list[Trial]:
    """All trials of a sweep in the order of the grid, with `repeats` seeds each.

    Repeat number r of every trial has the seed `config.seed + r`, so that trials of one repeat see
    the same batches and their differences are paired. Raises ConfigError for a config without a
    sweep, for an unknown key or value in the space, and for two trials of one name.
    """
    sweep = config.sweep
    if sweep is None:
        raise ConfigError(f"{config.name}: the config has no `sweep` section.")
    trials = [
        _trial(config, point, params, repeat)
        for point, params in _points(config)
        for repeat in range(sweep.repeats)
    ]
    names = [trial.name for trial in trials]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"sweep.space: several trials are named {', '.join(twice)}.")
    return trials


def _points(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    assert config.sweep is not None
    space = config.sweep.space
    grids = [grid.named().items() for grid in space.values()]
    for chosen in itertools.product(*grids):
        params = {key: value for key, (_, value) in zip(space, chosen, strict=True)}
        yield ",".join(_slug(name) for name, _ in chosen), params


def _trial(config: Config, point: str, params: dict[str, Any], repeat: int) -> Trial:
    assert config.sweep is not None
    seed = config.seed + repeat
    name = point if config.sweep.repeats == 1 else f"{point},seed={seed}"
    values = {"seed": seed, **params, "sweep": None, "name": f"{config.name}/{name}"}
    return Trial(name, point, params, config.replaced(values, f"sweep.space, trial {name}"))


def _slug(name: str) -> str:
    """A value's name as a folder name."""
    kept = [letter if letter.isalnum() or letter in "._-" else "-" for letter in name]
    return "".join(kept).strip("-") or "value"
