"""The plots of a sweep's report: learning curves and parallel coordinates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from derain.config.sweep import Dimension
from derain.pipelines.train.metrics_file import read_metrics
from derain.tune.report.axes import place_values, to_unit_range
from derain.tune.report.compare import Row

_LINES = ("-", "--", ":", "-.")
_LABEL_BOX = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}


def draw_curves(trials: Sequence[Row], metric: str, path: Path) -> None:
    """Training loss of every trial and, if the runs were validated while training, the metric."""
    steps_of = {row["name"]: read_metrics(Path(row["folder"])) for row in trials}
    validated = any(metric in values for steps in steps_of.values() for values in steps.values())
    panels = 2 if validated else 1
    figure, axes = plt.subplots(
        1, panels, figsize=(8 * panels, 4.5), dpi=120, layout="constrained", squeeze=False
    )
    loss, *rest = axes[0]
    for number, (name, steps) in enumerate(steps_of.items()):
        style = {"label": name, **curve_style(number)}
        _draw_curve(loss, *_series(steps, "loss"), smooth=True, **style)
        for panel in rest:
            _draw_curve(panel, *_series(steps, metric), smooth=False, **style)
    loss.set(xlabel="step", ylabel="training loss, mean over a tenth of the run", yscale="log")
    for panel in rest:
        panel.set(xlabel="step", ylabel=f"{metric}, validation")
    for panel in axes[0]:
        panel.grid(alpha=0.3)
    loss.legend(frameon=False, fontsize=8, ncols=1 + len(trials) // 12)
    figure.savefig(path)
    plt.close(figure)


def curve_style(number: int) -> dict[str, Any]:
    """Colour and line style of a curve; the first forty are all different."""
    return {"color": f"C{number % 10}", "linestyle": _LINES[number // 10 % len(_LINES)]}


def draw_parallel(
    trials: Sequence[Row], metric: str, space: Mapping[str, Dimension], path: Path
) -> None:
    """One line per trial across its parameters to its metric, brighter if that is better.

    Lines of trials that were stopped early are dashed.
    """
    keys = list(trials[0]["params"])
    figure, axes = plt.subplots(figsize=(2.5 + 2.2 * len(keys), 4.5), dpi=120, layout="constrained")
    placed = [place_values([row["params"][key] for row in trials], space[key]) for key in keys]
    scores = np.array([row["metrics"][metric] for row in trials])
    metric_heights = to_unit_range(scores)
    heights = np.stack([*(heights for heights, _ in placed), metric_heights])
    for row, line in zip(trials, heights.T, strict=True):
        linestyle = "--" if row["status"] == "stopped" else "-"
        colour = plt.get_cmap("viridis")(0.95 * line[-1])
        axes.plot(line, linestyle, color=colour, lw=1.4, alpha=0.85)
    for x, (_, ticks) in enumerate(placed):
        _draw_axis(axes, x, ticks)
    ends = (scores.argmin(), scores.argmax())
    _draw_axis(axes, len(keys), {f"{scores[i]:.3f}": metric_heights[i] for i in ends})
    axes.set_xticks(range(len(keys) + 1), [*keys, metric])
    axes.set(ylim=(-0.05, 1.05), xlim=(-0.3, len(keys) + 0.5), yticks=[])
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def _draw_curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, *, smooth: bool, **style: Any
) -> None:
    window = max(1, len(values) // 10) if smooth else 1
    mean = np.convolve(values, np.ones(window) / window, mode="valid") if len(values) else values
    axes.plot(steps[window - 1 :], mean, lw=1.2, **style)


def _series(steps: Mapping[int, Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which a key was logged, and its values there."""
    logged = sorted(step for step, values in steps.items() if key in values)
    return np.array(logged), np.array([steps[step][key] for step in logged])


def _draw_axis(axes: Axes, x: float, ticks: Mapping[str, float]) -> None:
    axes.axvline(x, color="#888", lw=0.8)
    for label, height in ticks.items():
        short = label if len(label) <= 24 else f"{label[:22]}…"
        axes.text(x + 0.03, height, short, fontsize=8, va="center", bbox=_LABEL_BOX)
