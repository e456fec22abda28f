"""How much of a metric's variance over the trials each parameter explains."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from derain.tune.report.axes import is_number
from derain.tune.report.compare import Row

GROUPS = 4
GROUP_SIZE = 3
"""Drawn numbers are put into at most `GROUPS` groups of at least `GROUP_SIZE` trials each."""
LEAST_POINTS = 8
"""With fewer points nothing is said: k groups of n points explain (k - 1) / (n - 1) at random,
which is 100 % for two groups of two points or three of three, and 14 % for two groups of eight."""


def importance(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """Share of the metric's variance that each parameter alone explains, largest first.

    The correlation ratio of a one-way analysis of variance, in 0..1; interactions are not included.
    k groups of n trials explain (k - 1) / (n - 1) at random. Parameters that cannot be assessed are
    left out: those with one value in all trials, or a different one in each. Empty for fewer than
    `LEAST_POINTS` points.
    """
    if len(rows) < LEAST_POINTS:
        return {}
    scores = np.array([row["metrics"][metric] for row in rows])
    total = ((scores - scores.mean()) ** 2).sum()
    shares = {}
    for key in rows[0]["params"]:
        groups = group_values([row["params"][key] for row in rows])
        if total > 0 and 1 < len(set(groups)) < len(scores):
            shares[key] = float(_between_groups(scores, groups) / total)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def group_values(values: Sequence[Any]) -> list[str]:
    """The group of each value: the value itself; None is a group of its own.

    Drawn numbers (if more than half of them are distinct) are grouped by rank instead: a number
    alone in its group would explain the metric of its trial whatever it is.
    """
    numbers = [value for value in values if is_number(value)]
    if len(set(numbers)) <= len(numbers) / 2:
        return [str(value) for value in values]
    count = min(GROUPS, max(1, len(numbers) // GROUP_SIZE))
    edges = np.quantile(numbers, np.arange(1, count) / count)
    return [
        f"part {np.searchsorted(edges, value)}" if is_number(value) else str(value)
        for value in values
    ]


def _between_groups(scores: np.ndarray, groups: Sequence[str]) -> float:
    """Sum of squares between groups."""
    names = np.array(groups)
    members = [scores[names == name] for name in dict.fromkeys(groups)]
    return float(sum(len(m) * (m.mean() - scores.mean()) ** 2 for m in members))
