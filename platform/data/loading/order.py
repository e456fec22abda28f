"""Which samples, in which order, for which rank: pure functions of seed, epoch and position.

Samples of several datasets are numbered through: dataset 0 has 0 .. sizes[0] - 1, and so on.
All chance comes from a counter-based hash of (seed, ...), so it is the same on every machine,
numpy version and number of processes, and any position can be asked for without a history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from derain.config.training import Stage

Seed = int


def mix64(*parts: int | np.ndarray) -> np.ndarray:
    """A well-mixed uint64 of integers (SplitMix64's finaliser, folded over the parts)."""
    state = np.asarray(np.uint64(0x9E3779B97F4A7C15))
    with np.errstate(over="ignore"):
        for part in parts:
            state = state ^ np.asarray(part).astype(np.uint64)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = (state ^ (state >> np.uint64(31))) + np.uint64(0x9E3779B97F4A7C15)
    return state


@dataclass(frozen=True, eq=False)
class Recipe:
    """What decides the order of samples, for all epochs."""

    sizes: tuple[int, ...]
    """Samples of each dataset."""
    seed: Seed
    mix: tuple[float, ...] | None = None
    """Share of each dataset in an epoch; None takes every sample once."""
    shuffle: bool = True
    strata: np.ndarray | None = None
    """The stratum of every sample, as small integers: each batch gets its share of every one."""


@dataclass(frozen=True)
class Drawn:
    """The samples of an epoch in training order: int64, one entry a place."""

    ids: np.ndarray
    times: np.ndarray
    """How often the sample came before, over all epochs: without `mix` that is the epoch."""


def epoch(recipe: Recipe, number: int) -> Drawn:
    """The samples of an epoch, as many as the datasets have together.

    Without `mix` every sample comes exactly once. With it, dataset i fills its share of the
    epoch, going through whole permutations of its samples that continue from epoch to epoch, so
    that over time all samples of a dataset are seen equally often.
    """
    parts = []
    first = 0
    for dataset, (size, count) in enumerate(zip(recipe.sizes, _counts(recipe), strict=True)):
        drawn = np.arange(number * count, (number + 1) * count)
        ids = _permuted(drawn, size, recipe.seed, dataset) if recipe.shuffle else drawn % size
        parts.append((first + ids, drawn // size))
        first += size
    ids, times = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = _order(recipe, number, ids)
    return Drawn(ids[order], times[order])


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The last of these stages that has begun by a step; they are in order, the first from 0."""
    return next(stage for stage in reversed(stages) if stage.from_step <= step)


def rank_slice(count: int, rank: int, world: int) -> slice:
    """The part of a global batch of `count` samples that a rank takes; sizes differ by at most 1.

    Ranks take neighbouring parts, so the global batch does not depend on the number of ranks.
    """
    return slice(count * rank // world, count * (rank + 1) // world)


def spread(strata: np.ndarray) -> np.ndarray:
    """An order of places in which every stratum is spread evenly, each in its own order.

    Of S strata one that holds the share p is found in any n neighbours n * p times, give or take
    1 + p * (S - 2) at most: its places are the middles of as many equal parts of the epoch.
    """
    counts = np.bincount(strata)
    by_stratum = np.argsort(strata, kind="stable")
    grouped = strata[by_stratum]
    within = np.arange(len(strata)) - (np.cumsum(counts) - counts)[grouped]
    middles = (within + 0.5) / counts[grouped]
    return by_stratum[np.argsort(middles, kind="stable")]


def _order(recipe: Recipe, number: int, ids: np.ndarray) -> np.ndarray:
    """Which of the drawn samples comes at each place of the epoch."""
    order = np.arange(len(ids))
    if recipe.shuffle:
        order = np.argsort(mix64(recipe.seed, 1, number, order), kind="stable")
    if recipe.strata is not None:
        order = order[spread(recipe.strata[ids[order]])]
        if recipe.shuffle:  # the rhythm of the strata begins elsewhere in every epoch
            order = np.roll(order, int(mix64(recipe.seed, 4, number) % np.uint64(len(order))))
    return order


def _counts(recipe: Recipe) -> list[int]:
    """How many samples of each dataset an epoch has: largest remainders of the shares."""
    if recipe.mix is None:
        return list(recipe.sizes)
    total = sum(recipe.sizes)
    exact = np.asarray(recipe.mix, dtype=np.float64) / sum(recipe.mix) * total
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return counts.tolist()


def _permuted(drawn: np.ndarray, size: int, seed: Seed, dataset: int) -> np.ndarray:
    """Samples number `drawn` of an endless row of permutations of a dataset."""
    passes = drawn // size
    permutations = [
        np.argsort(mix64(seed, 0, dataset, number, np.arange(size)), kind="stable")[
            drawn[passes == number] % size
        ]
        for number in np.unique(passes)
    ]
    return np.concatenate(permutations) if permutations else drawn
