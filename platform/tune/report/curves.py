"""Learning curves of trials, and the difference of each to the best at the same steps.

A curve shows one quantity, or it is not drawn: with a schedule the loss of two steps is not the
same, and trials with other losses cannot be compared by theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derain.config import Config
from derain.pipelines.train.metrics_file import read_metrics
from derain.tune.report.by_image import partners
from derain.tune.report.compare import Row

Series = tuple[np.ndarray, np.ndarray]
"""Steps, and a value at each."""


@dataclass(frozen=True)
class Curves:
    """One quantity of every trial that has it, against the step."""

    quantity: str
    """The key of the quantity in the metrics of a run."""
    larger_is_better: bool
    trials: Mapping[str, Series]
    """By trial, the best first."""
    differences: Mapping[str, Series]
    """By trial: how much better the one that it is compared with is at the same step."""


def read_curves(
    config: Config, ranking: Sequence[Row], stopped: Sequence[Row], metric: str
) -> Curves | str:
    """The metric where trials were validated while training, else the training loss.

    Returns a reason instead if there is neither.
    """
    trials = [*ranking, *stopped]
    logged = {row["name"]: read_metrics(Path(row["folder"])) for row in trials}
    quantity = metric
    if not any(metric in values for steps in logged.values() for values in steps.values()):
        loss, reason = _comparable_loss(config)
        if loss is None:
            return reason
        quantity = loss
    series = {name: _series(steps, quantity) for name, steps in logged.items()}
    series = {name: (steps, values) for name, (steps, values) in series.items() if len(steps)}
    if not series:
        return "the trials have logged no step"
    pairs = partners(ranking, trials)
    better = quantity == metric
    return Curves(
        quantity,
        better,
        series,
        {
            name: _difference(series[pairs[name]["name"]], series[name], 1 if better else -1)
            for name in series
            if name in pairs and pairs[name]["name"] in series
        },
    )


def running_mean(series: Series) -> Series:
    """The mean over a tenth of the values, at the last step of each window."""
    steps, values = series
    window = max(1, len(values) // 10)
    return steps[window - 1 :], np.convolve(values, np.ones(window) / window, mode="valid")


def _comparable_loss(config: Config) -> tuple[str | None, str]:
    """The part of the loss that is one quantity in all steps and trials; else None and why not."""
    assert config.sweep is not None
    varied = {key for key in config.sweep.space if key.split(".")[0] == "loss"}
    schedule = config.loss.schedule
    if any(key.startswith("loss.schedule") for key in varied) or (
        schedule is not None and schedule.kind != "constant"
    ):
        return None, "with a loss schedule the losses of two steps are not the same quantity"
    if any(key in ("loss", "loss.pixel") for key in varied):
        return None, "the trials have different pixel losses"
    if varied and config.loss.pixel == "none":
        return None, "the trials have no pixel loss in common"
    # Weights of other terms vary, or the terms of the network itself: the pixel loss is common.
    return config.loss.pixel if varied or "model.name" in config.sweep.space else "loss", ""


def _series(steps: Mapping[int, Row], key: str) -> Series:
    logged = sorted(step for step, values in steps.items() if key in values)
    return np.array(logged), np.array([steps[step][key] for step in logged])


def _difference(best: Series, other: Series, sign: int) -> Series:
    """sign x (best - other) at the steps that both have."""
    steps, at_best, at_other = np.intersect1d(best[0], other[0], return_indices=True)
    return steps, sign * (best[1][at_best] - other[1][at_other])
