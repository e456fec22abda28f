"""Compares the points of a sweep: mean and spread over seeds, paired differences, costs.

All trials of one repeat have the same seed and see the same batches in the same order. Differences
between two points are therefore taken seed by seed, which removes the effect of the seed itself.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

CONFIDENCE = 0.95

Row = Mapping[str, Any]
"""A trial or a point as `derainctl sweep --json` lists it."""


@dataclass(frozen=True)
class Difference:
    """The best metric minus another, paired by seed or by image, with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.low <= 0 <= self.high


def ranked(rows: Sequence[Row], metric: str, limits: Mapping[Any, float]) -> list[Row]:
    """Finished trials, best first: by the mean of their point, then by their own metric.

    Trials over a limit, and points with a missing repeat, come after all others.
    """
    points = _by_point(rows)
    most = max(map(len, points.values()), default=0)

    def rank(row: Row) -> tuple[bool, bool, float, float]:
        repeats = points[row["point"]]
        mean = statistics.fmean(repeat["metrics"][metric] for repeat in repeats)
        return within(row, limits), len(repeats) == most, mean, row["metrics"][metric]

    return sorted(rows, key=rank, reverse=True)


def within(row: Row, limits: Mapping[Any, float]) -> bool:
    """Whether a trial is within all limits on its costs."""
    return all(row["costs"][cost] <= limit for cost, limit in limits.items())


def standings(ranking: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """The points in the order of the ranking: mean, standard deviation, difference to the best.

    `sd` is None for a single repeat. `difference` and `told_apart` (whether the difference is
    significant) are None for the best point, and if fewer than two seeds are shared with it.
    """
    points = _by_point(ranking)
    best = next(iter(points.values()), [])
    standing = []
    for name, rows in points.items():
        values = [row["metrics"][metric] for row in rows]
        difference = None if rows is best else paired(best, rows, metric)
        standing.append(
            {
                "point": name,
                "params": rows[0]["params"],
                "repeats": len(rows),
                "mean": statistics.fmean(values),
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "difference": difference and asdict(difference),
                "told_apart": difference and difference.significant,
            }
        )
    return standing


def paired(best: Sequence[Row], other: Sequence[Row], metric: str) -> Difference | None:
    """`best` minus `other` over their shared seeds, with Student's interval of a paired t-test.

    None for fewer than two shared seeds.
    """
    other_values = {row["seed"]: row["metrics"][metric] for row in other}
    shared = [row for row in best if row["seed"] in other_values]
    return interval([row["metrics"][metric] - other_values[row["seed"]] for row in shared])


def interval(differences: Sequence[float]) -> Difference | None:
    """The mean of paired differences with Student's interval; None for fewer than two."""
    if len(differences) < 2:
        return None
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    if error == 0:  # scipy returns NaN for a scale of 0
        return Difference(mean, mean, mean)
    low, high = stats.t.interval(CONFIDENCE, len(differences) - 1, loc=mean, scale=error)
    return Difference(mean, float(low), float(high))


def pareto_front(
    rows: Sequence[Row], metric: str, costs: Sequence[str], limits: Mapping[Any, float]
) -> list[str]:
    """Names of the trials within the limits that no other dominates in metric and all costs."""
    objectives = {
        row["name"]: (row["metrics"][metric], *(-row["costs"][cost] for cost in costs))
        for row in rows
        if within(row, limits)
    }
    everyone = list(objectives.values())
    return [name for name, values in objectives.items() if not _is_dominated(values, everyone)]


def _is_dominated(values: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    return any(
        other != values and all(theirs >= own for theirs, own in zip(other, values, strict=True))
        for other in others
    )


def _by_point(rows: Sequence[Row]) -> dict[str, list[Row]]:
    points: dict[str, list[Row]] = {}
    for row in rows:
        points.setdefault(row["point"], []).append(row)
    return points
