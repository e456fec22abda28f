"""The order of samples, and each rank's part of it: pure functions of seed, epoch and position.

Samples of several datasets are numbered consecutively: dataset 0 has 0 .. sizes[0] - 1, and so on.
All randomness comes from a counter-based hash of (seed, ...), so it is the same on every machine,
with every version of numpy and any number of processes, and any position needs no history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from derain.config.training import Stage


def mix64(*parts: int | np.ndarray) -> np.ndarray:
    """A hash of integers, uint64 (SplitMix64's finaliser, folded over the parts)."""
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
    """Everything that determines the order of samples, for all epochs."""

    sizes: tuple[int, ...]
    """Number of samples in each dataset."""
    seed: int
    mix: tuple[float, ...] | None = None
    """Weight of each dataset in an epoch; None takes every sample once."""
    shuffle: bool = True
    strata: np.ndarray | None = None
    """The stratum of every sample, as small integers: each batch gets its share of each stratum."""


@dataclass(frozen=True)
class EpochOrder:
    """The samples of an epoch in training order: integers, one entry per position."""

    ids: np.ndarray
    times: np.ndarray
    """How often the sample was used before, over all epochs: without `mix` that is the epoch."""


def epoch_order(recipe: Recipe, number: int) -> EpochOrder:
    """The samples of an epoch, which is as long as all datasets together.

    Without `mix` every sample is used exactly once. With it, each dataset fills its share of the
    epoch with whole permutations of its samples that continue from epoch to epoch, so over time
    all samples of a dataset are used equally often.

    int32, 8 bytes a sample, for less than 2^31 samples; 28 bytes a sample while it is made, without
    strata.
    """
    total = sum(recipe.sizes)
    ids, times = np.empty(total, _integers(total)), np.empty(total, np.int32)
    filled = first = 0
    for dataset, (size, count) in enumerate(zip(recipe.sizes, _counts(recipe), strict=True)):
        begin, end = number * count, (number + 1) * count
        for turn in range(begin // size, -(-end // size)):
            part = slice(
                max(begin, turn * size) - turn * size, min(end, turn * size + size) - turn * size
            )
            place = slice(filled, filled + part.stop - part.start)
            ids[place] = _permutation(recipe, dataset, turn)[part]
            ids[place] += first
            times[place] = turn
            filled = place.stop
        first += size
    order = _positions(recipe, number, ids)
    return EpochOrder(ids[order], times[order])


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage at a step. Stages are sorted, and the first begins at step 0."""
    return next(stage for stage in reversed(stages) if stage.from_step <= step)


def rank_slice(count: int, rank: int, world: int) -> slice:
    """A rank's part of a global batch of `count` samples; the sizes differ by at most 1.

    The parts are neighbours, so the global batch does not depend on the number of ranks.
    """
    return slice(count * rank // world, count * (rank + 1) // world)


def spread_strata(strata: np.ndarray) -> np.ndarray:
    """A permutation that spreads every stratum evenly and keeps the order within it.

    With S strata, one that has the share p occurs in any n neighbours n * p times, give or take
    1 + p * (S - 2) at most: its positions are the middles of equal parts of the epoch.
    """
    counts = np.bincount(strata)
    by_stratum = np.argsort(strata, kind="stable")
    grouped = strata[by_stratum]
    within = np.arange(len(strata)) - (np.cumsum(counts) - counts)[grouped]
    middles = (within + 0.5) / counts[grouped]
    return by_stratum[np.argsort(middles, kind="stable")]


def _positions(recipe: Recipe, number: int, ids: np.ndarray) -> np.ndarray:
    """For each position of the epoch, the index of its sample in `ids`."""
    if recipe.shuffle:
        order = _shuffled(len(ids), recipe.seed, 1, number)
    else:
        order = np.arange(len(ids), dtype=_integers(len(ids)))
    if recipe.strata is not None:
        order = order[spread_strata(recipe.strata[ids[order]])]
        if recipe.shuffle:  # shift the pattern of the strata differently in every epoch
            order = np.roll(order, int(mix64(recipe.seed, 4, number) % np.uint64(len(order))))
    return order


def _permutation(recipe: Recipe, dataset: int, turn: int) -> np.ndarray:
    """The order in which the samples of a dataset are used when they are used `turn` times."""
    size = recipe.sizes[dataset]
    if recipe.shuffle:
        return _shuffled(size, recipe.seed, 0, dataset, turn)
    return np.arange(size, dtype=_integers(size))


def _shuffled(count: int, *parts: int) -> np.ndarray:
    """A permutation of `count` numbers by the hash of some parts and the number.

    numpy sorts four times as fast where equal hashes may change places. There are none: two of ten
    million are equal once in 400,000 permutations. If they are, the lower number comes first.
    """
    hashes = np.empty(count, np.uint64)
    for begin in range(0, count, _TOGETHER):
        numbers = np.arange(begin, min(begin + _TOGETHER, count))
        hashes[begin : begin + len(numbers)] = mix64(*parts, numbers)
    order = np.argsort(hashes)
    for begin in range(0, count, _TOGETHER):
        ordered = hashes[order[begin : begin + _TOGETHER + 1]]
        if (ordered[1:] == ordered[:-1]).any():
            order = np.argsort(hashes, kind="stable")
            break
    return order.astype(_integers(count))


def _integers(count: int) -> type[np.signedinteger]:
    """The type of numbers below `count`."""
    return np.int32 if count < 2**31 else np.int64


_TOGETHER = 2**16
"""Numbers that are hashed at a time: that many stay in the processor's cache."""


def _counts(recipe: Recipe) -> list[int]:
    """Number of samples from each dataset in an epoch, by the largest remainder method."""
    if recipe.mix is None:
        return list(recipe.sizes)
    total = sum(recipe.sizes)
    exact = np.asarray(recipe.mix, dtype=np.float64) / sum(recipe.mix) * total
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return counts.tolist()
