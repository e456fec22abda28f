"""The images of a sweep's report: learning curves, parallel coordinates, importance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from derain.config.sweep import Dimension
from derain.pipelines.train.progress import read_metrics
from derain.tune.report.parameters import groups, places, stretched

_LINES = ("-", "--", ":", "-.")
_PAPER = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}

Row = Mapping[str, Any]


def draw_curves(trials: Sequence[Row], metric: str, path: Path) -> None:
    """Training loss of every trial and, where the runs were validated meanwhile, the metric."""
    figures = {row["name"]: read_metrics(Path(row["folder"])) for row in trials}
    validated = any(metric in values for steps in figures.values() for values in steps.values())
    panels = 2 if validated else 1
    figure, axes = plt.subplots(
        1, panels, figsize=(8 * panels, 4.5), dpi=120, layout="constrained", squeeze=False
    )
    loss, *rest = axes[0]
    for number, (name, steps) in enumerate(figures.items()):
        look = {"label": name, **style(number)}
        _draw(loss, *_series(steps, "loss"), smooth=True, **look)
        for panel in rest:
            _draw(panel, *_series(steps, metric), smooth=False, **look)
    loss.set(xlabel="step", ylabel="training loss, mean over a tenth of the run", yscale="log")
    for panel in rest:
        panel.set(xlabel="step", ylabel=f"{metric} on data.eval")
    for panel in axes[0]:
        panel.grid(alpha=0.3)
    loss.legend(frameon=False, fontsize=8, ncols=1 + len(trials) // 12)
    figure.savefig(path)
    plt.close(figure)


def style(number: int) -> dict[str, Any]:
    """Colour and kind of a curve: no two of forty are alike."""
    return {"color": f"C{number % 10}", "linestyle": _LINES[number // 10 % len(_LINES)]}


def draw_parallel(
    trials: Sequence[Row], metric: str, space: Mapping[str, Dimension], path: Path
) -> None:
    """A line a trial across its parameters to its figure, brighter where that is better.

    Lines of trials that were stopped before their last step are dashed.
    """
    keys = list(trials[0]["params"])
    figure, axes = plt.subplots(figsize=(2.5 + 2.2 * len(keys), 4.5), dpi=120, layout="constrained")
    parameters = [places([row["params"][key] for row in trials], space[key]) for key in keys]
    scores = np.array([row["metrics"][metric] for row in trials])
    heights = np.stack([*(heights for heights, _ in parameters), stretched(scores)])
    for row, line in zip(trials, heights.T, strict=True):
        kind = "--" if row["status"] == "stopped" else "-"
        shade = plt.get_cmap("viridis")(0.95 * line[-1])
        axes.plot(line, kind, color=shade, lw=1.4, alpha=0.85)
    for at, (_, ticks) in enumerate(parameters):
        _draw_axis(axes, at, ticks)
    _draw_axis(axes, len(keys), {f"{v:.3f}": _within(v, scores) for v in _ends(scores)})
    axes.set_xticks(range(len(keys) + 1), [*keys, metric])
    axes.set(ylim=(-0.05, 1.05), xlim=(-0.3, len(keys) + 0.5), yticks=[])
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def importance(ranking: Sequence[Row], metric: str) -> dict[str, float]:
    """Share of the metric's variance that each parameter alone explains, largest first.

    The correlation ratio of a one-way analysis of variance, in 0..1; interactions count for none.
    By chance alone k groups of n trials explain (k - 1) / (n - 1).
    Left out are parameters that say nothing: one value in all trials, or another one in each.
    """
    scores = np.array([row["metrics"][metric] for row in ranking])
    total = ((scores - scores.mean()) ** 2).sum()
    found = {}
    for key in ranking[0]["params"]:
        parts = groups([row["params"][key] for row in ranking])
        if total > 0 and 1 < len(set(parts)) < len(scores):
            found[key] = float(_between(scores, parts) / total)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _draw(axes: Axes, steps: np.ndarray, values: np.ndarray, *, smooth: bool, **look: Any) -> None:
    window = max(1, len(values) // 10) if smooth else 1
    mean = np.convolve(values, np.ones(window) / window, mode="valid") if len(values) else values
    axes.plot(steps[window - 1 :], mean, lw=1.2, **look)


def _series(steps: Mapping[int, Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    kept = sorted(step for step, values in steps.items() if key in values)
    return np.array(kept), np.array([steps[step][key] for step in kept])


def _draw_axis(axes: Axes, at: int, ticks: Mapping[str, float]) -> None:
    axes.axvline(at, color="#888", lw=0.8)
    for label, height in ticks.items():
        short = label if len(label) <= 24 else f"{label[:22]}…"
        axes.text(at + 0.03, height, short, fontsize=8, va="center", bbox=_PAPER)


def _ends(scores: np.ndarray) -> list[float]:
    return sorted({float(scores.min()), float(scores.max())})


def _within(value: float, scores: np.ndarray) -> float:
    span = float(scores.max() - scores.min())
    return (value - float(scores.min())) / span if span else 0.5


def _between(scores: np.ndarray, parts: Sequence[str]) -> float:
    names = np.array(parts)
    members = [scores[names == name] for name in dict.fromkeys(parts)]
    return float(sum(len(each) * (each.mean() - scores.mean()) ** 2 for each in members))
