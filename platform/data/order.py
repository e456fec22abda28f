"""Which samples, in which order, for which rank: pure functions of seed, epoch and position.

Samples of several datasets are numbered through: dataset 0 has 0 .. sizes[0] - 1, and so on.
All chance comes from a counter-based hash of (seed, ...), so it is the same on every machine,
numpy version and number of processes, and any position can be asked for without a history.
"""

from collections.abc import Sequence

import numpy as np

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


def epoch_ids(
    sizes: Sequence[int], mix: Sequence[float] | None, seed: Seed, epoch: int
) -> np.ndarray:
    """All sample ids of an epoch in training order: int64, shape (sum(sizes),).

    Without `mix` every sample comes exactly once. With it, dataset i fills its share of the
    epoch, going through whole permutations of its samples that continue from epoch to epoch, so
    that over time all samples of a dataset are seen equally often.
    """
    parts = []
    first = 0
    for number, (size, count) in enumerate(zip(sizes, _counts(sizes, mix), strict=True)):
        drawn = np.arange(epoch * count, (epoch + 1) * count)
        parts.append(first + _permuted(drawn, size, seed, number))
        first += size
    ids = np.concatenate(parts)
    return ids[np.argsort(mix64(seed, 1, epoch, np.arange(len(ids))), kind="stable")]


def rank_slice(count: int, rank: int, world: int) -> slice:
    """The part of a global batch of `count` samples that a rank takes; sizes differ by at most 1.

    Ranks take neighbouring parts, so the global batch does not depend on the number of ranks.
    """
    return slice(count * rank // world, count * (rank + 1) // world)


def _counts(sizes: Sequence[int], mix: Sequence[float] | None) -> list[int]:
    """How many samples of each dataset an epoch has: largest remainders of the shares."""
    if mix is None:
        return list(sizes)
    total = sum(sizes)
    exact = np.asarray(mix, dtype=np.float64) / sum(mix) * total
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
