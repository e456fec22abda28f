"""The tables of a sweep's report: points (means over seeds) and trials, each also as CSV."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.evaluation.metric_names import psnr_name, ssim_name
from derain.tune.report.axes import label
from derain.tune.report.compare import Difference, Row
from derain.tune.report.published import Published
from derain.tune.report.render import Table

NOT_SIGNIFICANT = "not significantly different (95 %)"
BY_IMAGE = "best minus this, by image [95 % CI]"

_METRICS = {
    "psnr_y": ("PSNR-Y (dB)", 3),
    "ssim_y": ("SSIM-Y", 4),
    "psnr_rgb": ("PSNR-RGB (dB)", 3),
    "ssim_rgb": ("SSIM-RGB", 4),
}
"""A metric's name in the header of a table, and its number of digits."""


def point_table(config: Config, points: Sequence[Row], published: Published | None) -> Table:
    """The points of `compare.standings`: mean over seeds, and the best point minus each other."""
    assert config.sweep is not None
    metric = config.sweep.metric
    title, digits = _METRICS[metric]
    table = [["point", "seeds", f"{title}, mean ± sd", "best minus this [95 % CI]", ""]]
    if published:
        table[0] += published.heads(metric)
    for number, point in enumerate(points):
        spread = "" if point["sd"] is None else f" ± {point['sd']:.{digits}f}"
        row = [point["point"], str(point["repeats"]), f"{point['mean']:.{digits}f}{spread}"]
        row += ["", "best"] if number == 0 else _difference(point, digits)
        if published:
            row += published.cells(point["point"], {metric: point["mean"]})
        table.append(row)
    return table


def trial_table(
    config: Config,
    ranking: Sequence[Row],
    stopped: Sequence[Row],
    differences: Mapping[str, Difference],
    published: Published | None,
) -> Table:
    """The ranked trials, then those stopped early, with the published values if there are any.

    `differences`: of `by_image.differences`. Columns of differences and of steps are added where
    there are any to tell.
    """
    assert config.sweep is not None
    drawn = [key for key, values in config.sweep.space.items() if values.grid is None]
    costs = list(ranking[0]["costs"])
    measured = ranking[0]["metrics"]
    psnr, ssim = (_METRICS[name][0] for name in (psnr_name(measured), ssim_name(measured)))
    table = [["trial", *drawn, psnr, ssim, "gain over input (dB)", "minutes", *costs]]
    for trial in (*ranking, *stopped):
        row = [trial["name"], *(_drawn(config, key, trial["params"].get(key)) for key in drawn)]
        row += _measured(trial)
        row += [f"{trial['costs'][cost]:,.0f}" if "costs" in trial else "" for cost in costs]
        table.append(row)
    trials = [*ranking, *stopped]
    if any(trial["steps"] != config.train.steps for trial in trials):
        _insert(table, 1, ["steps", *(f"{trial['steps']:,}" for trial in trials)])
    if differences:
        digits = _METRICS[config.sweep.metric][1]
        texts = [_interval(differences.get(trial["name"]), digits) for trial in trials]
        _insert(table, len(table[0]), [BY_IMAGE, *texts])
    if published:  # its values are for complete runs
        table[0] += published.heads("psnr")
        for row, trial in zip(table[1:], trials, strict=True):
            point = "" if trial["status"] == "stopped" else trial["point"]
            row += published.cells(point, trial["metrics"])
    return table


def write_trials(trials: Sequence[Row], path: Path) -> None:
    """One row per trial: values, seed, metrics, costs, error and MLflow run."""
    params = list(dict.fromkeys(key for trial in trials for key in trial["params"]))
    metrics = list(next(t["metrics"] for t in trials if t["metrics"] is not None))
    costs = list(dict.fromkeys(cost for trial in trials for cost in trial.get("costs", ())))
    head = ["name", "point", "status", "seed", "steps", *params, *metrics]
    head += [*(f"input_{m}" for m in metrics), *(f"cost_{cost}" for cost in costs)]
    rows = [[*head, "seconds", "error", "mlflow_run_id"]]
    for trial in trials:
        inputs, measured, paid = (trial.get(key) or {} for key in ("input", "metrics", "costs"))
        rows.append(
            [trial["name"], trial["point"], trial["status"], trial["seed"], trial.get("steps")]
            + [_plain(trial["params"].get(key)) for key in params]
            + [measured.get(name) for name in metrics]
            + [inputs.get(name) for name in metrics]
            + [paid.get(name) for name in costs]
            + [trial.get(key) for key in ("seconds", "error", "mlflow_run_id")]
        )
    _write(rows, path)


def write_points(points: Sequence[Row], path: Path) -> None:
    """One row per point: mean, spread and paired difference to the best."""
    rows: list[list[Any]] = [
        ["point", "repeats", "mean", "sd", "difference", "low", "high", "told_apart"]
    ]
    for point in points:
        difference = point["difference"] or {}
        rows.append(
            [point[key] for key in ("point", "repeats", "mean", "sd")]
            + [difference.get(key) for key in ("mean", "low", "high")]
            + [point["told_apart"]]
        )
    _write(rows, path)


def _difference(point: Row, digits: int) -> list[str]:
    """The best point minus this one with its interval, and whether that is significant."""
    if point["difference"] is None:
        return ["", "fewer than two shared seeds"]
    told = {key: point["difference"][key] for key in ("mean", "low", "high")}
    return [
        _interval(Difference(**told), digits),
        "" if point["told_apart"] else NOT_SIGNIFICANT,
    ]


def _interval(difference: Difference | None, digits: int) -> str:
    if difference is None:
        return ""
    values = (difference.mean, difference.low, difference.high)
    mean, low, high = (f"{value:+.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}]"


def _measured(trial: Row) -> list[str]:
    """PSNR, SSIM, gain and minutes; a stopped trial has neither gain nor minutes."""
    psnr, ssim = (trial["metrics"][of(trial["metrics"])] for of in (psnr_name, ssim_name))
    gain = f"{psnr - trial['input'][psnr_name(trial['input'])]:+.3f}" if trial["input"] else ""
    minutes = "" if trial["seconds"] is None else f"{trial['seconds'] / 60:.1f}"
    return [f"{psnr:.3f}", f"{ssim:.4f}", gain, minutes]


def _drawn(config: Config, key: str, value: Any) -> str:
    """A drawn value; empty if its condition did not hold."""
    assert config.sweep is not None
    return "" if value is None else label(value, config.sweep.space[key])


def _insert(table: list[list[str]], at: int, column: Sequence[str]) -> None:
    for row, cell in zip(table, column, strict=True):
        row.insert(at, cell)


def _plain(value: Any) -> Any:
    """A CSV cell: text as it is, None as an empty cell, everything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _write(rows: Sequence[Sequence[Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
