"""The search space of a sweep -> its trials, each with a whole config that has been checked.

All chance is a function of (config.seed, number of the sample, key): a sweep that is extended
draws the same values for the samples that it had.
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

RESERVED = ("name", "output_dir", "profile", "seed", "sweep", "register", "data.synthetic")
"""Keys that are the sweep's own: `seed` is what `sweep.repeats` counts up."""

Chosen = dict[str, tuple[str, Any]]
"""Key to the name of its value and the value; keys that do not exist at this point are missing."""


@dataclass(frozen=True, eq=False)
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
    """All trials of a sweep, grids crossed in their order, with `repeats` seeds each.

    For `search: tpe`, whose later points depend on results, only their number and names are right.
    Raises ConfigError for a config without a sweep, for an unknown key or value in the space, and
    for two trials of one name.
    """
    check(config)
    trials = [
        trial for name, params in _points(config) for trial in trials_of(config, name, params)
    ]
    names = [trial.name for trial in trials]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"sweep.space: several trials are named {', '.join(twice)}.")
    return trials


def trials_of(config: Config, point: str, params: Mapping[str, Any]) -> list[Trial]:
    """The repeats of one point.

    Repeat number r of every point has the seed `config.seed + r`, so that trials of one repeat see
    the same batches and their differences are paired.
    """
    assert config.sweep is not None
    repeats = config.sweep.repeats
    trials = []
    for seed in range(config.seed, config.seed + repeats):
        name = point if repeats == 1 else f"{point},seed={seed}"
        values = {"seed": seed, **params, "sweep": None, "name": f"{config.name}/{name}"}
        checked = config.replaced(values, f"sweep.space, trial {name}")
        trials.append(Trial(name, point, dict(params), checked))
    return trials


def check(config: Config) -> None:
    """Raise ConfigError unless every key, condition, listed value and end of a range is valid.

    A grid's values are all in the plan, whose messages name the trial.
    """
    if config.sweep is None:
        raise ConfigError(f"{config.name}: the config has no `sweep` section.")
    space = config.sweep.space
    for key, dimension in space.items():
        for own in RESERVED:
            if key == own or key.startswith(f"{own}."):
                raise ConfigError(f"sweep.space: `{key}` is the sweep's own and cannot vary.")
        for other, wanted in (dimension.when or {}).items():
            _check_condition(space, key, other, wanted)
    for key in ordered(space):
        for name, value in () if space[key].grid else _extremes(space[key]):
            example = _values(_example(space, {key: (name, value)}))
            config.replaced(example, f"sweep.space.{key} at {name}")


def ordered(space: Mapping[str, Dimension]) -> list[str]:
    """The keys, each behind those that its `when` names; raises ConfigError for a circle."""
    left, done = list(space), list[str]()
    while left:
        free = [key for key in left if set(space[key].when or {}) <= set(done)]
        if not free:
            raise ConfigError(f"sweep.space: the `when` of {', '.join(left)} go in a circle.")
        done.append(free[0])
        left.remove(free[0])
    return done


def exists(dimension: Dimension, chosen: Chosen) -> bool:
    """Whether a key exists at a point whose earlier keys have been chosen."""
    return all(
        other in chosen and _matches(wanted, *chosen[other])
        for other, wanted in (dimension.when or {}).items()
    )


def draw(config: Config, number: int, key: str) -> tuple[str, Any]:
    """Name and value of one dimension for sample `number`."""
    assert config.sweep is not None
    digest = hashlib.sha256(key.encode()).digest()
    rng = np.random.default_rng([config.seed, number, *digest[:8]])
    return drawn(config.sweep.space[key], rng)


def drawn(dimension: Dimension, rng: np.random.Generator) -> tuple[str, Any]:
    """A value of a dimension, from the chance that is given."""
    if dimension.ends is None:
        named = list(dimension.named().items())
        return named[rng.integers(len(named))]
    low, high = dimension.ends
    if dimension.integers is not None:
        value: float = int(rng.integers(int(low), int(high) + 1))
    elif dimension.loguniform is not None:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        value = rng.uniform(low, high)
    # exp(log(high)) may lie a hair above
    return str(value), min(max(value, dimension.ends[0]), dimension.ends[1])


def sample_name(number: int) -> str:
    """The name of a point whose values are drawn."""
    return f"s{number:03d}"


def _points(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and values of every point: the grids crossed, once for every sample."""
    assert config.sweep is not None
    space, samples = config.sweep.space, config.sweep.samples
    for number in range(samples or 1):
        for chosen in _expanded(config, ordered(space), {}, number):
            names = [_slug(chosen[k][0]) for k in space if k in chosen and space[k].grid]
            yield ",".join([*names, sample_name(number)] if samples else names), _values(chosen)


def _expanded(config: Config, keys: list[str], chosen: Chosen, number: int) -> Iterator[Chosen]:
    """All points of the grids below what has been chosen, with sample `number` of the others."""
    assert config.sweep is not None
    if not keys:
        yield chosen
        return
    key, *rest = keys
    dimension = config.sweep.space[key]
    if not exists(dimension, chosen):
        yield from _expanded(config, rest, chosen, number)
        return
    values = dimension.named().items() if dimension.grid else [draw(config, number, key)]
    for value in values:
        yield from _expanded(config, rest, {**chosen, key: value}, number)


def _example(space: Mapping[str, Dimension], fixed: Chosen) -> Chosen:
    """A point where the fixed keys exist: what they need first, else the first of all values."""
    chosen = dict(fixed)
    for key in reversed(ordered(space)):
        if key in chosen:
            for other, wanted in (space[key].when or {}).items():
                options = space[other].named().items()
                chosen[other] = next(item for item in options if _matches(wanted, *item))
    for key in ordered(space):
        if key not in chosen and exists(space[key], chosen):
            chosen[key] = _extremes(space[key])[0]
    return chosen


def _extremes(dimension: Dimension) -> list[tuple[str, Any]]:
    """The ends of a range, or all listed values, by name."""
    if dimension.ends is None:
        return list(dimension.named().items())
    return [(str(end), end) for end in dimension.ends]


def _check_condition(space: Mapping[str, Dimension], key: str, other: str, wanted: Any) -> None:
    where = f"sweep.space.{key}.when"
    if other not in space:
        near = difflib.get_close_matches(other, space, n=1, cutoff=0.5)
        hint = f" The nearest one is `{near[0]}`." if near else ""
        raise ConfigError(f"{where}: `{other}` is not a key of the space.{hint}")
    named = space[other].named()
    if not named:
        raise ConfigError(f"{where}: `{other}` is a range; a condition needs listed values.")
    for option in wanted if isinstance(wanted, list) and wanted not in named.values() else [wanted]:
        if not any(_matches(option, *item) for item in named.items()):
            raise ConfigError(
                f"{where}: `{other}` never is {option!r}; its values are {', '.join(named)}."
            )


def _matches(wanted: Any, name: str, value: Any) -> bool:
    if wanted == value:
        return True
    options = wanted if isinstance(wanted, list) else [wanted]
    return any(option in (name, value) for option in options)


def _values(chosen: Chosen) -> dict[str, Any]:
    return {key: value for key, (_, value) in chosen.items()}


def _slug(name: str) -> str:
    """A value's name as a folder name."""
    kept = [letter if letter.isalnum() or letter in "._-" else "-" for letter in name]
    return "".join(kept).strip("-") or "value"
