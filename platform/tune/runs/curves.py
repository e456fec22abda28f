"""Learning curves of runs for a terminal: one line of blocks for each run and quantity."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derain.pipelines.train.metrics_file import read_metrics

CROPS = "train_psnr"
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40
POINTS = 200
"""At most so many points of a curve are in the JSON document."""

Curve = dict[str, list[float]]
"""`steps` and `values`."""


def quantities(logged: Mapping[int, Mapping[str, Any]]) -> dict[str, Curve]:
    """The curves of a run: its validation metrics, and the PSNR of the crops that it trains on.

    Not the loss, which is another quantity in every run and, with a schedule, in every step.
    """
    names = {
        key for values in logged.values() for key in values if key.startswith(("psnr_", "ssim_"))
    } | {CROPS}
    curves = {name: _curve(logged, name) for name in sorted(names)}
    return {name: curve for name, curve in curves.items() if len(curve["steps"]) > 1}


def curves_of(folder: Path) -> dict[str, Curve]:
    """`quantities` of the run in a folder."""
    return quantities(read_metrics(folder))


def thinned(curve: Curve) -> Curve:
    """A curve of at most POINTS points, each the mean of its neighbours."""
    count = len(curve["steps"])
    if count <= POINTS:
        return curve
    bounds = [round(number * count / POINTS) for number in range(POINTS + 1)]
    parts = list(itertools.pairwise(bounds))
    return {
        "steps": [curve["steps"][end - 1] for _, end in parts],
        "values": [_mean(curve["values"][begin:end]) for begin, end in parts],
    }


def drawn(curves: Sequence[Curve], width: int = WIDTH) -> list[str]:
    """A line of blocks for each curve, all on the same scale, from step 0 to the largest step.

    A column is the mean of its steps; one without a value repeats the one before.
    """
    last = max((curve["steps"][-1] for curve in curves), default=0)
    columns = [_columns(curve, last, width) for curve in curves]
    values = [value for line in columns for value in line if value is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    return ["".join(_block(value, low, high) for value in line) for line in columns]


def _columns(curve: Curve, last: float, width: int) -> list[float | None]:
    bins: list[list[float]] = [[] for _ in range(width)]
    for step, value in zip(curve["steps"], curve["values"], strict=True):
        bins[min(width - 1, int(step / max(last, 1) * width))].append(value)
    end = max(number for number, values in enumerate(bins) if values)
    columns: list[float | None] = []
    for number, values in enumerate(bins):
        before = columns[-1] if columns else None
        columns.append(_mean(values) if values else before if number < end else None)
    return columns


def _block(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (value - low) / (high - low) if high > low else 0.0
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _curve(logged: Mapping[int, Mapping[str, Any]], name: str) -> Curve:
    steps = sorted(step for step, values in logged.items() if _finite(values.get(name)))
    return {"steps": list(steps), "values": [logged[step][name] for step in steps]}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")
