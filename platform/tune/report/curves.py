"""Learning curves of trials, and the difference of each to the best at the same steps.

The training loss is never drawn: with a schedule that of two steps is not one quantity, and trials
with other losses cannot be compared by theirs. The PSNR of the training crops is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derain.pipelines.train.metrics_file import read_metrics
from derain.tune.report.by_image import partners
from derain.tune.report.compare import Row

CROPS = "train_psnr"
Series = tuple[np.ndarray, np.ndarray]
"""Steps, and a value at each."""


@dataclass(frozen=True)
class Curves:
    """One quantity of every trial that has it, against the step."""

    quantity: str
    """The key of the quantity in the metrics of a run; larger is better."""
    validated: bool
    """Whether it is measured on the validation images, not on the crops of the training."""
    trials: Mapping[str, Series]
    """By trial, the best first."""
    differences: Mapping[str, Series]
    """By trial: how much better the one that it is compared with is at the same step."""


def read_curves(ranking: Sequence[Row], stopped: Sequence[Row], metric: str) -> Curves | str:
    """The metric where trials were validated while training, else the PSNR of the crops.

    Returns a reason instead if there is neither.
    """
    trials = [*ranking, *stopped]
    logged = {row["name"]: read_metrics(Path(row["folder"])) for row in trials}
    validated = any(metric in values for steps in logged.values() for values in steps.values())
    quantity = metric if validated else CROPS
    series = {name: _series(steps, quantity) for name, steps in logged.items()}
    series = {name: (steps, values) for name, (steps, values) in series.items() if len(steps)}
    if not series:
        return "the trials have logged no step"
    pairs = partners(ranking, trials)
    return Curves(
        quantity,
        validated,
        series,
        {
            name: _difference(series[pairs[name]["name"]], series[name])
            for name in series
            if name in pairs and pairs[name]["name"] in series
        },
    )


def running_mean(series: Series) -> Series:
    """The mean over a tenth of the values, at the last step of each window."""
    steps, values = series
    window = max(1, len(values) // 10)
    return steps[window - 1 :], np.convolve(values, np.ones(window) / window, mode="valid")


def _series(steps: Mapping[int, Row], key: str) -> Series:
    logged = sorted(step for step, values in steps.items() if key in values)
    return np.array(logged), np.array([steps[step][key] for step in logged])


def _difference(best: Series, other: Series) -> Series:
    """best - other at the steps that both have."""
    steps, at_best, at_other = np.intersect1d(best[0], other[0], return_indices=True)
    return steps, (best[1][at_best] - other[1][at_other])
