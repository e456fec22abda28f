"""Points of a sweep against each other: mean and spread over seeds, paired differences, cost.

All trials of one repeat have the same seed and see the same batches in the same order, so what
differs between two points is measured seed by seed, which takes out what the seed alone does.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

CONFIDENCE = 0.95

Row = Mapping[str, Any]
"""A finished trial as `derainctl sweep --json` lists it."""


@dataclass(frozen=True)
class Difference:
    """The best point's metric minus another's, paired by seed, with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """False where the interval holds 0: these repeats cannot tell which one is better."""
        return not self.low <= 0 <= self.high


def ranked(rows: Sequence[Row], metric: str, limits: Mapping[Any, float]) -> list[Row]:
    """Finished trials, best first: by the mean of their point, then by their own figure.

    Trials over a limit, and points of which a repeat is missing, come after all others.
    """
    points = _by_point(rows)
    most = max(map(len, points.values()), default=0)

    def place(row: Row) -> tuple[bool, bool, float, float]:
        repeats = points[row["point"]]
        mean = statistics.fmean(each["metrics"][metric] for each in repeats)
        return within(row, limits), len(repeats) == most, mean, row["metrics"][metric]

    return sorted(rows, key=place, reverse=True)


def within(row: Row, limits: Mapping[Any, float]) -> bool:
    """Whether a trial costs no more than the limits allow."""
    return all(row["costs"][cost] <= limit for cost, limit in limits.items())


def standings(ranking: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """The points in the order of the ranking: mean, standard deviation, difference to the best.

    `sd` is None for a single repeat, and so is `difference` where fewer than two seeds are shared.
    """
    points = _by_point(ranking)
    first = next(iter(points.values()), [])
    found = []
    for name, rows in points.items():
        figures = [row["metrics"][metric] for row in rows]
        difference = None if rows is first else paired(first, rows, metric)
        found.append(
            {
                "point": name,
                "params": rows[0]["params"],
                "repeats": len(rows),
                "mean": statistics.fmean(figures),
                "sd": statistics.stdev(figures) if len(figures) > 1 else None,
                "difference": difference and asdict(difference),
                "told_apart": difference and difference.told_apart,
            }
        )
    return found


def paired(best: Sequence[Row], other: Sequence[Row], metric: str) -> Difference | None:
    """`best` minus `other` over the seeds that both have; None for fewer than two.

    The interval is Student's, of the differences: with n seeds, mean +- t(n - 1) sd / sqrt(n).
    """
    theirs = {row["seed"]: row["metrics"][metric] for row in other}
    pairs = [row["metrics"][metric] - theirs[row["seed"]] for row in best if row["seed"] in theirs]
    if len(pairs) < 2:
        return None
    mean, error = statistics.fmean(pairs), statistics.stdev(pairs) / len(pairs) ** 0.5
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(pairs) - 1)) * error
    return Difference(mean, mean - reach, mean + reach)


def front(
    rows: Sequence[Row], metric: str, costs: Sequence[str], limits: Mapping[Any, float]
) -> list[str]:
    """Names of the trials within the limits that no other such beats in metric and all costs."""
    figures = {
        row["name"]: (row["metrics"][metric], *(-row["costs"][cost] for cost in costs))
        for row in rows
        if within(row, limits)
    }
    return [name for name, own in figures.items() if not _beaten(own, figures.values())]


def _beaten(own: tuple[float, ...], others: Any) -> bool:
    return any(
        other != own and all(theirs >= ours for theirs, ours in zip(other, own, strict=True))
        for other in others
    )


def _by_point(rows: Sequence[Row]) -> dict[str, list[Row]]:
    points: dict[str, list[Row]] = {}
    for row in rows:
        points.setdefault(row["point"], []).append(row)
    return points
