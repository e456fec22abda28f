"""The pictures of a sweep's report: learning curves, parallel coordinates, importance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from derain.pipelines.progress import read_figures

MANY_VALUES = 6
"""A numeric parameter with more values than this is binned by quartile for its importance."""

_PAPER = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}

Row = Mapping[str, Any]


def draw_curves(ranking: Sequence[Row], metric: str, path: Path) -> None:
    """Training loss of every trial and, where the runs were validated meanwhile, the metric."""
    figures = {row["name"]: read_figures(Path(row["folder"])) for row in ranking}
    validated = any(metric in values for steps in figures.values() for values in steps.values())
    panels = 2 if validated else 1
    figure, axes = plt.subplots(
        1, panels, figsize=(8 * panels, 4.5), dpi=120, layout="constrained", squeeze=False
    )
    loss, *rest = axes[0]
    for name, steps in figures.items():
        _draw(loss, name, *_series(steps, "loss"), smooth=True)
        for panel in rest:
            _draw(panel, name, *_series(steps, metric), smooth=False)
    loss.set(xlabel="step", ylabel="training loss, mean over a tenth of the run", yscale="log")
    for panel in rest:
        panel.set(xlabel="step", ylabel=f"{metric} on data.eval")
    for panel in axes[0]:
        panel.grid(alpha=0.3)
    loss.legend(frameon=False, fontsize=8, ncols=1 + len(ranking) // 12)
    figure.savefig(path)
    plt.close(figure)


def draw_parallel(ranking: Sequence[Row], metric: str, path: Path) -> None:
    """A line a trial across its parameters to its figure, brighter where that is better."""
    keys = list(ranking[0]["params"])
    figure, axes = plt.subplots(figsize=(2.5 + 2.2 * len(keys), 4.5), dpi=120, layout="constrained")
    places = [_places([row["params"][key] for row in ranking]) for key in keys]
    scores = np.array([row["metrics"][metric] for row in ranking])
    heights = np.stack([*(place for place, _ in places), _stretched(scores)])
    for line, shade in zip(heights.T, _stretched(scores), strict=True):
        axes.plot(line, color=plt.get_cmap("viridis")(0.95 * shade), lw=1.4, alpha=0.85)
    for at, (_, ticks) in enumerate(places):
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
    Left out are parameters that say nothing: one value in all trials, or another one in each.
    """
    scores = np.array([row["metrics"][metric] for row in ranking])
    total = ((scores - scores.mean()) ** 2).sum()
    found = {}
    for key in ranking[0]["params"]:
        groups = _groups([row["params"][key] for row in ranking])
        count = len(set(groups))
        if total > 0 and 1 < count < len(scores):
            found[key] = float(_between(scores, groups) / total)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _draw(axes: Axes, name: str, steps: np.ndarray, values: np.ndarray, *, smooth: bool) -> None:
    window = max(1, len(values) // 10) if smooth else 1
    mean = np.convolve(values, np.ones(window) / window, mode="valid") if len(values) else values
    axes.plot(steps[window - 1 :], mean, label=name, lw=1.2)


def _series(steps: Mapping[int, Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    kept = sorted(step for step, values in steps.items() if key in values)
    return np.array(kept), np.array([steps[step][key] for step in kept])


def _places(values: Sequence[Any]) -> tuple[np.ndarray, dict[str, float]]:
    """Heights in 0..1 of a parameter's values and the labels of its axis: numbers to scale,
    logarithmic where they span a factor of 50, anything else at equal distances."""
    if all(_is_number(value) for value in values):
        numbers = np.array(values, dtype=float)
        if numbers.min() > 0 and numbers.max() / numbers.min() >= 50:
            numbers = np.log(numbers)
        heights = _stretched(numbers)
        shown = dict(zip(values, heights, strict=True))
        if len(shown) > MANY_VALUES:
            shown = {value: shown[value] for value in (min(shown), max(shown))}
        return heights, {f"{value:.3g}": height for value, height in shown.items()}
    names = [str(value) for value in values]
    known = list(dict.fromkeys(names))
    at = {name: place / max(1, len(known) - 1) for place, name in enumerate(known)}
    return np.array([at[name] for name in names]), at


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


def _stretched(numbers: np.ndarray) -> np.ndarray:
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span else np.full(len(numbers), 0.5)


def _groups(values: Sequence[Any]) -> list[Any]:
    """The group of each value: itself, or its quarter of the range of many numbers."""
    if all(_is_number(value) for value in values) and len(set(values)) > MANY_VALUES:
        edges = np.quantile(np.array(values, dtype=float), (0.25, 0.5, 0.75))
        return np.searchsorted(edges, np.array(values, dtype=float)).tolist()
    return [str(value) for value in values]


def _between(scores: np.ndarray, groups: Sequence[Any]) -> float:
    names = np.array(groups)
    parts = [scores[names == name] for name in dict.fromkeys(groups)]
    return float(sum(len(part) * (part.mean() - scores.mean()) ** 2 for part in parts))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
