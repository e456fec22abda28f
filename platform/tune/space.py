"""Turns the search space of a sweep into its trials, each with a complete, validated config.

All randomness is a function of (config.seed, sample number, key), so a sweep that is extended draws
the same values for the samples it already had.
"""

import difflib
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from derain.config import Config
from derain.config.sweep import Dimension
from derain.errors import ConfigError
from derain.storage.names import fitting
from derain.tune.conflicts import check_conflicts

RESERVED = (
    *("name", "output_dir", "profile", "seed", "sweep", "register", "data.synthetic"),
    *("data.validation", "data.validation_share", "data.test", "data.choose_on_test"),
)
"""Keys that are the same for all trials; `seed` is incremented by `sweep.repeats`."""

Chosen = dict[str, tuple[str, Any]]
"""Key to the name of its value and the value; keys that are not active are missing."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One run of a sweep."""

    name: str
    """Unique within the sweep; also the name of the run's folder."""
    point: str
    """Name of the combination of values; all repeats share it."""
    params: dict[str, Any]
    """Config key to value."""
    config: Config


def plan(config: Config) -> list[Trial]:
    """All trials of a sweep: every combination of the grids, in order, with `repeats` seeds each.

    For `search: tpe`, whose later points depend on results, only the number and the names of the
    trials are right. Raises ConfigError for a config without a sweep, for an unknown key or value
    in the space, for two trials with the same name, and for what `check_conflicts` refuses.
    """
    check_space(config)
    trials = [
        trial for name, params in _points(config) for trial in trials_of(config, name, params)
    ]
    names = [trial.name for trial in trials]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ConfigError(f"sweep.space: several trials are named {', '.join(duplicates)}.")
    check_conflicts(config, [trial.config for trial in trials])
    return trials


def trials_of(config: Config, point: str, params: Mapping[str, Any]) -> list[Trial]:
    """The repeats of one point.

    Repeat r of every point has the seed `config.seed + r`, so trials of one repeat see the same
    batches and their differences are paired.
    """
    assert config.sweep is not None
    repeats = config.sweep.repeats
    trials = []
    for seed in range(config.seed, config.seed + repeats):
        # The name of a folder; all values are in `params`, and so in the journal and in MLflow.
        name = fitting(point if repeats == 1 else f"{point},seed={seed}", digest=True)
        values = {"seed": seed, **params, "sweep": None, "name": f"{config.name}/{name}"}
        checked = config.replaced(values, f"sweep.space, trial {name}")
        trials.append(Trial(name, point, dict(params), checked))
    return trials


def check_space(config: Config) -> None:
    """Raise ConfigError unless all keys, conditions, listed values and ends of ranges are valid.

    The values of a grid are left to `plan`, whose messages name the trial.
    """
    if config.sweep is None:
        raise ConfigError(f"{config.name}: the config has no `sweep` section.")
    space = config.sweep.space
    for key, dimension in space.items():
        for reserved in RESERVED:
            if key == reserved or key.startswith(f"{reserved}."):
                raise ConfigError(
                    f"sweep.space: `{key}` is the same for all trials and cannot vary."
                )
        for other, condition in (dimension.when or {}).items():
            _check_condition(space, key, other, condition)
    for key in ordered_keys(space):
        if space[key].grid:
            continue
        for name, value in _extremes(space[key]):
            example = _values(_example(space, {key: (name, value)}))
            config.replaced(example, f"sweep.space.{key} at {name}")


def ordered_keys(space: Mapping[str, Dimension]) -> list[str]:
    """The keys, each after those its `when` names; raises ConfigError for circular conditions."""
    remaining, done = list(space), list[str]()
    while remaining:
        free = [key for key in remaining if set(space[key].when or {}) <= set(done)]
        if not free:
            keys = ", ".join(remaining)
            raise ConfigError(f"sweep.space: the `when` conditions of {keys} are circular.")
        done.append(free[0])
        remaining.remove(free[0])
    return done


def is_active(dimension: Dimension, chosen: Chosen) -> bool:
    """Whether the `when` condition of a dimension holds, given the values chosen so far."""
    return all(
        other in chosen and _matches(condition, *chosen[other])
        for other, condition in (dimension.when or {}).items()
    )


def _draw_sample(config: Config, number: int, key: str) -> tuple[str, Any]:
    """Name and value of one dimension for sample `number`."""
    assert config.sweep is not None
    digest = hashlib.sha256(key.encode()).digest()
    rng = np.random.default_rng([config.seed, number, *digest[:8]])
    return draw_value(config.sweep.space[key], rng)


def draw_value(dimension: Dimension, rng: np.random.Generator) -> tuple[str, Any]:
    """Name and value of a random point of a dimension."""
    if dimension.ends is None:
        options = list(dimension.named().items())
        return options[rng.integers(len(options))]
    low, high = dimension.ends
    if dimension.integers is not None:
        value: float = int(rng.integers(int(low), int(high) + 1))
    elif dimension.loguniform is not None:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        value = rng.uniform(low, high)
    # exp(log(high)) may be slightly above high
    return str(value), min(max(value, dimension.ends[0]), dimension.ends[1])


def sample_name(number: int) -> str:
    """The name of the point of sample `number`."""
    return f"s{number:03d}"


def _points(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and values of every point: all combinations of the grids, once per sample."""
    assert config.sweep is not None
    space, samples = config.sweep.space, config.sweep.samples
    for number in range(samples or 1):
        for chosen in _expand(config, ordered_keys(space), {}, number):
            names = [_slug(chosen[k][0]) for k in space if k in chosen and space[k].grid]
            yield ",".join([*names, sample_name(number)] if samples else names), _values(chosen)


def _expand(config: Config, keys: list[str], chosen: Chosen, number: int) -> Iterator[Chosen]:
    """All combinations of the grids among `keys`, with sample `number` of the other keys."""
    assert config.sweep is not None
    if not keys:
        yield chosen
        return
    key, *rest = keys
    dimension = config.sweep.space[key]
    if not is_active(dimension, chosen):
        yield from _expand(config, rest, chosen, number)
        return
    values = dimension.named().items() if dimension.grid else [_draw_sample(config, number, key)]
    for value in values:
        yield from _expand(config, rest, {**chosen, key: value}, number)


def _example(space: Mapping[str, Dimension], fixed: Chosen) -> Chosen:
    """A point at which the fixed keys are active; every other key has its first value."""
    chosen = dict(fixed)
    for key in reversed(ordered_keys(space)):
        if key in chosen:
            for other, condition in (space[key].when or {}).items():
                options = space[other].named().items()
                chosen[other] = next(option for option in options if _matches(condition, *option))
    for key in ordered_keys(space):
        if key not in chosen and is_active(space[key], chosen):
            chosen[key] = _extremes(space[key])[0]
    return chosen


def _extremes(dimension: Dimension) -> list[tuple[str, Any]]:
    """The ends of a range, or all listed values, by name."""
    if dimension.ends is None:
        return list(dimension.named().items())
    return [(str(end), end) for end in dimension.ends]


def _check_condition(space: Mapping[str, Dimension], key: str, other: str, condition: Any) -> None:
    where = f"sweep.space.{key}.when"
    if other not in space:
        near = difflib.get_close_matches(other, space, n=1, cutoff=0.5)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ConfigError(f"{where}: `{other}` is not a key of the space.{hint}")
    options = space[other].named()
    if not options:
        raise ConfigError(f"{where}: `{other}` is a range; a condition needs listed values.")
    several = isinstance(condition, list) and condition not in options.values()
    for value in condition if several else [condition]:
        if not any(_matches(value, *option) for option in options.items()):
            raise ConfigError(
                f"{where}: `{other}` is never {value!r}; its values are {', '.join(options)}."
            )


def _matches(condition: Any, name: str, value: Any) -> bool:
    """Whether a condition names this value: by the value, its name, or in a list of either."""
    if condition == value:
        return True
    options = condition if isinstance(condition, list) else [condition]
    return any(option in (name, value) for option in options)


def _values(chosen: Chosen) -> dict[str, Any]:
    return {key: value for key, (_, value) in chosen.items()}


def _slug(name: str) -> str:
    """A value's name, safe as part of a folder name and of a run's name."""
    safe = (letter.isascii() and (letter.isalnum() or letter in "._-") for letter in name)
    kept = [letter if is_safe else "-" for letter, is_safe in zip(name, safe, strict=True)]
    return "".join(kept).strip("-") or "value"
