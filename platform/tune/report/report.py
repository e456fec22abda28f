"""Writes the report of a sweep: ranking, published values, curves, importance, gallery.

<sweep>/report/report.md     links to the images next to it
<sweep>/report/report.html   the same, with the images embedded
<sweep>/report/trials.csv    one row per trial, including failed ones
<sweep>/report/points.csv    with repeats: mean, spread and paired difference of each point
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from derain.config import Config
from derain.data.images.decode import encode_png
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.roles import open_validation
from derain.evaluation.gallery import gallery
from derain.evaluation.metric_names import psnr_name, ssim_name, title
from derain.evaluation.protocols import identity
from derain.inference.predictor import Predictor
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.tune.report import compare, plots, tables
from derain.tune.report.compare import Row
from derain.tune.report.importance import importance
from derain.tune.report.render import Page, Plot, Table

FOLDER = "report"
MARKDOWN = f"{FOLDER}/report.md"
HTML = f"{FOLDER}/report.html"
TRIALS = f"{FOLDER}/trials.csv"
POINTS = f"{FOLDER}/points.csv"
GALLERY_IMAGES = 4

CURVES = Plot("curves.png", "Learning curves")
PARALLEL = Plot("parallel.png", "Parameters and metric of each trial; brighter is better")
PARALLEL_WITH_STOPPED = Plot(PARALLEL.file, f"{PARALLEL.title}; dashed: stopped early")
GALLERY = Plot("gallery.png", "Rainy, worst trial, best trial, clean")
GALLERY_OF_ONE = Plot(GALLERY.file, "Rainy, the only trial that finished, clean")


def write(config: Config, ranking: Sequence[Row], result: Row, grid: np.ndarray) -> None:
    """Write the report of a sweep into its folder.

    `ranking`: finished trials, best first. `result`: what `sweep --json` prints. `grid`: the image
    of `draw_gallery`, uint8 HWC RGB.
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


def draw_gallery(config: Config, ranking: Sequence[Row]) -> np.ndarray:
    """Outputs of the worst and best trial on the same validation images: uint8 HWC RGB."""
    trials = [ranking[-1], ranking[0]] if len(ranking) > 1 else [ranking[0]]
    networks = [
        Predictor(restore_network(checkpoint.load(trial["checkpoint"]), trust=True), "cpu").derain
        for trial in trials
    ]
    pixels = open_all_pixels(open_validation(config.data)[:1], config.data)
    return gallery(networks, pixels[0], GALLERY_IMAGES)


def summary(report: str | Path) -> str:
    """The text of a written report up to its first image, for a terminal."""
    text = Path(report).read_text(encoding="utf-8")
    return f"{text.partition('![')[0].rstrip()}\n\nReport: {report}"


def _tables(
    config: Config, ranking: Sequence[Row], stopped: Sequence[Row], points: Sequence[Row]
) -> dict[str, Table]:
    trials = tables.trial_table(config, ranking, stopped)
    if not _repeated(config):
        return {"Trials": trials}
    return {"Points (mean over seeds)": tables.point_table(config, points), "Trials": trials}


def _repeated(config: Config) -> bool:
    assert config.sweep is not None
    return config.sweep.repeats > 1


def _stopped(config: Config, trials: Sequence[Row]) -> list[Row]:
    """The trials that were stopped before their last step, the longest first."""
    assert config.sweep is not None
    metric = config.sweep.metric
    stopped = [trial for trial in trials if trial["status"] == "stopped"]
    return sorted(
        stopped, key=lambda trial: (trial["steps"], trial["metrics"][metric]), reverse=True
    )


def _lines(
    config: Config, ranking: Sequence[Row], stopped: Sequence[Row], result: Row
) -> Iterator[str]:
    """The notes below the tables."""
    assert config.sweep is not None
    yield _setting(config, ranking, stopped)
    if stopped:
        yield (
            f"Stopped early: {len(stopped)} of {len(result['trials'])} trials, listed below those "
            "that finished, with their metrics at the step where each stopped."
        )
    yield from _test_lines(result)
    if config.sweep.reference:
        yield f"Published values: {config.sweep.reference.source}."
        reason = _incomparable(config)
        if reason:
            yield f"Not comparable: {reason}. The published values are shown for reference only."
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
    if result.get("register_error"):
        yield f"Not registered: {result['register_error']}"


def _test_lines(result: Row) -> Iterator[str]:
    """Which metrics are of validation and which of the test images."""
    if result["test_error"]:
        yield f"The test images are not scored: {result['test_error']}"
    test = result["test"]
    if test is None:
        yield "All metrics are of the validation images, which have chosen the best trial."
        return
    names = ", ".join(item["name"] for item in test["datasets"])
    yield (
        f"**Test images** ({names}; scored once, after the choice): trial {result['best']} has "
        f"{_listed(test['metrics'])}, the rainy input {_listed(test['input'])}. "
        "All other metrics here are of the validation images."
    )
    if test["chosen_on_test"]:
        yield (
            "**Chosen on the test images** (data.choose_on_test): checkpoints and trials were "
            "selected by these very metrics, which are therefore too good."
        )


def _listed(metrics: Mapping[str, float]) -> str:
    psnr, ssim = psnr_name(metrics), ssim_name(metrics)
    return f"{metrics[psnr]:.3f} dB {title(psnr)} and {metrics[ssim]:.4f} {title(ssim)}"


def _incomparable(config: Config) -> str | None:
    """Why the results cannot be compared with the published values; None if nothing says so."""
    if config.profile != "paper":
        profile = config.profile or "none"
        return f"profile {profile} uses a network of another size and other images"
    if getattr(config.model, "encoder_weights", None) == "random":
        return "the encoder has random weights"
    return None


def _setting(config: Config, ranking: Sequence[Row], stopped: Sequence[Row]) -> str:
    """The scores of the input, the protocol, and the training of each trial."""
    assert config.sweep is not None
    train, rainy = config.train, ranking[0]["input"]
    last_seed = config.seed + config.sweep.repeats - 1
    seeds = f"seeds {config.seed} to {last_seed}" if _repeated(config) else f"seed {config.seed}"
    early = any(trial["steps"] != train.steps for trial in (*ranking, *stopped))
    steps = f"up to {train.steps}" if early else f"{train.steps}"
    return (
        f"Rainy input: {rainy[psnr_name(rainy)]:.3f} dB PSNR, {rainy[ssim_name(rainy)]:.4f} SSIM. "
        f"Protocol: {identity(config.eval.protocol)}. Each trial: {steps} steps of "
        f"{train.batch_size} crops of {train.crop_px} px, {seeds}."
    )


def _findings(config: Config, ranking: Sequence[Row], result: Row) -> Iterator[str]:
    """Trials over a limit, the Pareto front, and the importance of each parameter."""
    assert config.sweep is not None
    metric, limits, costs = config.sweep.metric, config.sweep.limits, config.sweep.costs
    over = [trial["name"] for trial in ranking if not compare.within(trial, limits)]
    if over:
        yield f"Over sweep.limits, ranked last: {', '.join(over)}."
    if costs:
        front = ", ".join(result["front"])
        yield f"Pareto front of {metric} and {', '.join(costs)}: {front}."
    points = [
        {"params": point["params"], "metrics": {metric: point["mean"]}}
        for point in result["points"]
    ]
    shares = importance(points, metric)
    if shares:
        listed = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        yield f"Variance of {metric} explained by each parameter alone: {listed}."


def _draw(
    config: Config, ranking: Sequence[Row], stopped: Sequence[Row], folder: Path
) -> tuple[Plot, ...]:
    """Draw the plots; returns the images of the report, the gallery included, in their order."""
    assert config.sweep is not None
    metric, space = config.sweep.metric, config.sweep.space
    trials = [*ranking, *stopped]
    plots.draw_curves(trials, metric, folder / CURVES.file)
    gallery_plot = GALLERY if len(ranking) > 1 else GALLERY_OF_ONE
    if len(space) == 1:
        return CURVES, gallery_plot
    plots.draw_parallel(trials, metric, space, folder / PARALLEL.file)
    return CURVES, PARALLEL_WITH_STOPPED if stopped else PARALLEL, gallery_plot


def _space(config: Config) -> str:
    assert config.sweep is not None
    tree = config.sweep.model_dump(mode="json", exclude_none=True)["space"]
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None).rstrip()
