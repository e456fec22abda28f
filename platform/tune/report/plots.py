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
from derain.evaluation.gallery import metric_label
from derain.storage.amounts import counted
from derain.tune.report.axes import place_values, to_unit_range
from derain.tune.report.compare import Row
from derain.tune.report.curves import Curves, running_mean

MARKED = 50
"""Curves of at most this many points have their points marked."""

MOST_NAMED = 24
"""Curves with a name and a style of their own, the best first; the others are grey."""
NAME_CHARACTERS = 40
_GREY: dict[str, Any] = {"color": "#ccc", "linestyle": "-", "zorder": 1}
_LINES = ("-", "--", ":", "-.")
_LABEL_BOX = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}


def draw_curves(curves: Curves, path: Path) -> None:
    """The quantity of every trial against the step; beside it how far each is behind the best.

    The trials of `curves` are in the order of their ranks.
    """
    figure, axes = plt.subplots(
        1, 2, figsize=(16, 4.5), dpi=120, layout="constrained", squeeze=False
    )
    own, behind = axes[0]
    named = {name: curve_style(n) for n, name in enumerate([*curves.trials][:MOST_NAMED])}
    others = len(curves.trials) - len(named)
    for panel, drawn in ((own, curves.trials), (behind, curves.differences)):
        for name, series in drawn.items():
            shown = series if curves.validated else running_mean(series)
            marker = "." if len(shown[0]) <= MARKED else ""
            style = {"label": _shortened(name), **named[name]} if name in named else _GREY
            panel.plot(*shown, lw=1.2, marker=marker, **style)
        panel.set(xlabel="step")
        panel.grid(alpha=0.3)
    if curves.validated:
        quantity = metric_label(curves.quantity)
        own.set(ylabel=f"{quantity}, validation")
        behind.set(ylabel=f"{quantity}: best minus this, on the same images")
    else:
        own.set(ylabel="PSNR of the training crops, dB", title="Mean over a tenth of the run")
        behind.set(ylabel="dB: best minus this, on the same batches")
    behind.axhline(0, color="#888", lw=0.8)
    if others:
        own.plot([], [], label=counted(others, "other"), **_GREY)
    own.legend(frameon=False, fontsize=8, ncols=1 + len(named) // 12)
    figure.savefig(path)
    plt.close(figure)


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"


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


def _draw_axis(axes: Axes, x: float, ticks: Mapping[str, float]) -> None:
    axes.axvline(x, color="#888", lw=0.8)
    for label, height in ticks.items():
        short = label if len(label) <= 24 else f"{label[:22]}…"
        axes.text(x + 0.03, height, short, fontsize=8, va="center", bbox=_LABEL_BOX)
