"""The report of a sweep: ranking beside the published table, curves, importance, gallery.

<sweep>/report/report.md     with the images beside it
<sweep>/report/report.html   the same, images included
<sweep>/report/trials.csv    every trial, failed ones too, one row each
<sweep>/report/points.csv    with repeats: mean, spread and paired difference of each point
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from derain.config import Config
from derain.data.images.decode import encode_png
from derain.data.loading.loader import open_all
from derain.data.prepared.manifest import open_prepared
from derain.evaluation.gallery import gallery
from derain.inference.predictor import Predictor
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.tune.report import compare, plots, tables
from derain.tune.report.page import Page, Plot

FOLDER = "report"
MARKDOWN = f"{FOLDER}/report.md"
HTML = f"{FOLDER}/report.html"
TRIALS = f"{FOLDER}/trials.csv"
POINTS = f"{FOLDER}/points.csv"
GALLERY_IMAGES = 4

CURVES = Plot("curves.png", "Learning curves")
PARALLEL = Plot("parallel.png", "Parameters and figure of each trial, bright is better")
STOPPED_TOO = Plot(PARALLEL.file, f"{PARALLEL.title}; dashed trials were stopped early")
GALLERY = Plot("gallery.png", "Rainy, worst trial, best trial, clean")
GALLERY_OF_ONE = Plot(GALLERY.file, "Rainy, the one trial that finished, clean")

Row = Mapping[str, Any]


def write(config: Config, ranking: Sequence[Row], result: Row, grid: np.ndarray) -> None:
    """Write the report of a sweep into its folder; `ranking` has the best trial first.

    `grid` is what `compared` made: uint8 HWC RGB.
    """
    folder = config.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    stopped = _stopped(config, result["trials"])
    images = _draw(config, ranking, stopped, folder)
    (folder / GALLERY.file).write_bytes(encode_png(grid))
    page = Page(
        f"Sweep {config.name}, profile {config.profile or 'none'}",
        _tables(config, ranking, stopped, result["points"]),
        tuple(_lines(config, ranking, stopped, result)),
        images,
        _space(config),
    )
    (config.folder / MARKDOWN).write_text(page.markdown(), encoding="utf-8")
    (config.folder / HTML).write_text(page.html(folder), encoding="utf-8")
    tables.write_trials(result["trials"], config.folder / TRIALS)
    if _repeated(config):
        tables.write_points(result["points"], config.folder / POINTS)


def compared(config: Config, ranking: Sequence[Row]) -> np.ndarray:
    """A gallery of the worst trial against the best on the same held-out images."""
    ends = [ranking[-1], ranking[0]] if len(ranking) > 1 else [ranking[0]]
    networks = [
        Predictor(restore_network(checkpoint.load(trial["checkpoint"]), trust=True), "cpu").derain
        for trial in ends
    ]
    pixels = open_all([open_prepared(config.data.eval[0])], config.data)
    return gallery(networks, pixels[0], GALLERY_IMAGES)


def summary(report: str | Path) -> str:
    """What a written report says before its first image, for a terminal."""
    text = Path(report).read_text(encoding="utf-8")
    return f"{text.partition('![')[0].rstrip()}\n\nReport: {report}"


def _tables(
    config: Config, ranking: Sequence[Row], stopped: Sequence[Row], points: Sequence[Row]
) -> dict[str, tables.Table]:
    trials = tables.trial_table(config, ranking, stopped)
    if not _repeated(config):
        return {"Trials": trials}
    return {"Points over seeds": tables.point_table(config, points), "Trials": trials}


def _repeated(config: Config) -> bool:
    assert config.sweep is not None
    return config.sweep.repeats > 1


def _stopped(config: Config, trials: Sequence[Row]) -> list[Row]:
    """The trials that were stopped before their last step, those that came farthest first."""
    assert config.sweep is not None
    metric = config.sweep.metric
    found = [trial for trial in trials if trial["status"] == "stopped"]
    return sorted(found, key=lambda trial: (trial["steps"], trial["metrics"][metric]), reverse=True)


def _lines(
    config: Config, ranking: Sequence[Row], stopped: Sequence[Row], result: Row
) -> Iterator[str]:
    """What there is to say beside the tables."""
    assert config.sweep is not None
    yield _setting(config, ranking, stopped)
    if stopped:
        yield (
            f"Stopped early: {len(stopped)} of {len(result['trials'])} trials, below those that "
            "finished; the figures are of the step where each stopped."
        )
    if config.sweep.reference:
        yield f"Published: {config.sweep.reference.source}."
        reason = _incomparable(config)
        if reason:
            yield (
                f"Not comparable: {reason}; the published figures stand here as a reference only."
            )
    yield from _findings(config, ranking, result)
    for trial in result["trials"]:
        if trial["status"] == "failed":
            yield f"Failed: {trial['name']}: {trial['error']}"
    registered = result["registered"]
    if registered:
        yield (
            f"Registered: {registered['name']} version {registered['version']} as "
            f"{registered['alias']}, from trial {result['best']}."
        )


def _incomparable(config: Config) -> str | None:
    """Why the published figures are of something else, where the config tells."""
    if config.profile != "paper":
        profile = config.profile or "none"
        return f"profile {profile} trains another size of network on other images"
    if getattr(config.model, "encoder_weights", None) == "random":
        return "the encoder has random weights"
    return None


def _setting(config: Config, ranking: Sequence[Row], stopped: Sequence[Row]) -> str:
    assert config.sweep is not None
    given, last = ranking[0]["input"], config.seed + config.sweep.repeats - 1
    early = any(trial["steps"] != config.train.steps for trial in (*ranking, *stopped))
    seeds = f"seeds {config.seed} to {last}" if _repeated(config) else f"seed {config.seed}"
    return (
        f"Rainy input: {given['psnr_y']:.3f} dB PSNR-Y, {given['ssim_y']:.4f} SSIM-Y. "
        f"Protocol: {config.eval.protocol}. Each trial: {'up to ' * early}{config.train.steps} "
        f"steps of {config.train.batch_size} crops of {config.train.crop_px} px, {seeds}."
    )


def _findings(config: Config, ranking: Sequence[Row], result: Row) -> Iterator[str]:
    """Limits, front, and the importance of each parameter."""
    assert config.sweep is not None
    metric, limits, costs = config.sweep.metric, config.sweep.limits, config.sweep.costs
    over = [trial["name"] for trial in ranking if not compare.within(trial, limits)]
    if over:
        yield f"Over sweep.limits, behind all others: {', '.join(over)}."
    if costs:
        front = ", ".join(result["front"])
        yield f"No trial beats these in {metric} and in {', '.join(costs)}: {front}."
    points = [
        {"params": point["params"], "metrics": {metric: point["mean"]}}
        for point in result["points"]
    ]
    shares = plots.importance(points, metric)
    if shares:
        named = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        yield f"Variance of {metric} that a parameter alone explains: {named}."


def _draw(
    config: Config, ranking: Sequence[Row], stopped: Sequence[Row], folder: Path
) -> tuple[Plot, ...]:
    """Draw what there is to see of the trials; returns the report's images in their order."""
    assert config.sweep is not None
    metric, space = config.sweep.metric, config.sweep.space
    trials = [*ranking, *stopped]
    plots.draw_curves(trials, metric, folder / CURVES.file)
    shown = GALLERY if len(ranking) > 1 else GALLERY_OF_ONE
    if len(space) == 1:
        return CURVES, shown
    plots.draw_parallel(trials, metric, space, folder / PARALLEL.file)
    return CURVES, STOPPED_TOO if stopped else PARALLEL, shown


def _space(config: Config) -> str:
    assert config.sweep is not None
    tree = config.sweep.model_dump(mode="json", exclude_none=True)["space"]
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None).rstrip()
