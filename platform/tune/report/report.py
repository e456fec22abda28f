"""Writes the report of a sweep: ranking, published values, curves, importance, gallery.

<sweep>/report/report.md     links to the images next to it
<sweep>/report/report.html   the same, with the images embedded
<sweep>/report/gallery.html  validation images of the best and the worst trial, to compare
<sweep>/report/trials.csv    one row per trial, including failed ones
<sweep>/report/points.csv    with repeats: mean, spread and paired difference of each point
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from derain.config import Config
from derain.evaluation.gallery import metric_label
from derain.evaluation.metric_names import psnr_name, ssim_name, title
from derain.evaluation.protocols import identity
from derain.storage.amounts import counted
from derain.tune.report import by_image, compare, plots, tables
from derain.tune.report.compare import Difference, Row
from derain.tune.report.curves import Curves, read_curves
from derain.tune.report.gallery import GRID, PAGE
from derain.tune.report.importance import LEAST_POINTS, importance
from derain.tune.report.provenance import COMMAND, CONFIG, provenance
from derain.tune.report.published import published_of, why_incomparable
from derain.tune.report.render import Page, Plot, Table

FOLDER = "report"
MARKDOWN = f"{FOLDER}/report.md"
HTML = f"{FOLDER}/report.html"
TRIALS = f"{FOLDER}/trials.csv"
POINTS = f"{FOLDER}/points.csv"

CURVES = Plot("curves.png", "Learning curves, and how far each trial is behind the best")
PARALLEL = Plot("parallel.png", "Parameters and metric of each trial; brighter is better")
PARALLEL_WITH_STOPPED = Plot(PARALLEL.file, f"{PARALLEL.title}; dashed: stopped early")
GALLERY = Plot(GRID, "Rainy, best trial, worst trial, clean", PAGE)
GALLERY_OF_ONE = Plot(GRID, "Rainy, the only trial that finished, clean", PAGE)


def write(config: Config, ranking: Sequence[Row], result: Row) -> None:
    """Write the report of a sweep into its folder, where `gallery.write` has put the images.

    `ranking`: finished trials, best first. `result`: what `sweep --json` prints.
    """
    assert config.sweep is not None
    folder = config.folder / FOLDER
    stopped = _stopped(config, result["trials"])
    curves = read_curves(ranking, stopped, config.sweep.metric)
    differences = by_image.differences(ranking, config.sweep.metric)
    why_not = why_incomparable(config)
    shown = _draw(config, ranking, stopped, curves, folder)
    page = Page(
        f"Sweep {config.name}, profile {config.profile or 'none'}",
        _tables(config, ranking, stopped, result["points"], differences, why_not),
        (
            *_lines(config, ranking, stopped, result, why_not),
            *_comparison(config, curves, differences),
            *provenance(config, result),
        ),
        shown,
        _space(config),
    )
    (config.folder / MARKDOWN).write_text(page.markdown(), encoding="utf-8")
    (config.folder / HTML).write_text(page.html(folder), encoding="utf-8")
    tables.write_trials(result["trials"], config.folder / TRIALS)
    if _repeated(config):
        tables.write_points(result["points"], config.folder / POINTS)


def summary(report: str | Path) -> str:
    """The tables and notes of a written report, without where they come from."""
    text = Path(report).read_text(encoding="utf-8")
    for end in (f"\n- {COMMAND}", f"\n- {CONFIG}", "!["):
        text = text.partition(end)[0]
    return f"{text.rstrip()}\n\nReport: {report}"


def _tables(
    config: Config,
    ranking: Sequence[Row],
    stopped: Sequence[Row],
    points: Sequence[Row],
    differences: Mapping[str, Difference],
    why_not: str | None,
) -> dict[str, Table]:
    published = published_of(config, points, why_not)
    trials = {"Trials": tables.trial_table(config, ranking, stopped, differences, published)}
    if not _repeated(config):
        return trials
    return {"Points (mean over seeds)": tables.point_table(config, points, published)} | trials


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
    config: Config,
    ranking: Sequence[Row],
    stopped: Sequence[Row],
    result: Row,
    why_not: str | None,
) -> Iterator[str]:
    """The notes below the tables."""
    assert config.sweep is not None
    yield _setting(config, ranking, stopped)
    if not _repeated(config) and len(ranking) > 1:
        yield (
            "One seed for each point: another seed moves a trial by as much as settings often do, "
            "so trials that are close have no order yet. `sweep.repeats: 3` trains each with three "
            "seeds and says which points differ."
        )
    if stopped:
        yield (
            f"Stopped early: {len(stopped)} of {counted(len(result['trials']), 'trial')}, listed "
            "below those that finished, with their metrics at the step where each stopped."
        )
    yield from _test_lines(result)
    if config.sweep.reference:
        yield f"Published values: {config.sweep.reference.source}."
        if why_not:
            yield (
                f"Not comparable: {why_not}. So the orders are shown, ours and the published one, "
                "and no differences."
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


def _comparison(
    config: Config, curves: Curves | str, differences: Mapping[str, Difference]
) -> Iterator[str]:
    """What the curves show, and what the differences by image say."""
    assert config.sweep is not None
    metric = metric_label(config.sweep.metric)
    unvalidated = "no trial was validated while it trained (train.eval_every_steps is not set)"
    if isinstance(curves, str):
        yield f"No learning curves: {unvalidated}, and {curves}."
    elif not curves.validated:
        yield (
            f"Learning curves: {unvalidated}, so they show the PSNR of the training crops, and on "
            "the right that of the best trial minus each other's on the same batches."
        )
    else:
        yield (
            f"Learning curves: {metric} on the validation images against the step, and on the "
            "right that of the best trial minus each other's at the same step, on the same images."
        )
    if differences:
        yield (
            f"{tables.BY_IMAGE}: {metric} of the best trial minus this one's on the same "
            "validation image, the mean over the images and Student's interval. It tells whether "
            "these two networks differ on such images, not whether other seeds would."
        )


def _setting(config: Config, ranking: Sequence[Row], stopped: Sequence[Row]) -> str:
    """The scores of the input, the protocol, and the training of each trial."""
    assert config.sweep is not None
    train, rainy = config.train, ranking[0]["input"]
    last_seed = config.seed + config.sweep.repeats - 1
    seeds = f"seeds {config.seed} to {last_seed}" if _repeated(config) else f"seed {config.seed}"
    early = any(trial["steps"] != train.steps for trial in (*ranking, *stopped))
    steps = f"{'up to ' if early else ''}{counted(train.steps, 'step')}"
    images = len(by_image.image_scores(ranking[0]))
    on = f" on {counted(images, 'image')}" if images else ""
    return (
        f"Rainy input: {rainy[psnr_name(rainy)]:.3f} dB PSNR, {rainy[ssim_name(rainy)]:.4f} "
        f"SSIM{on}. Protocol: {identity(config.eval.protocol)}. Each trial: {steps} of "
        f"{counted(train.batch_size, 'crop')} of {train.crop_px} px, {seeds}."
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
    if len(points) < LEAST_POINTS:
        yield (
            f"The importance of parameters is not estimated from {counted(len(points), 'point')}: "
            f"that takes {LEAST_POINTS}."
        )
    elif shares:
        listed = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        yield f"Variance of {metric} explained by each parameter alone: {listed}."


def _draw(
    config: Config,
    ranking: Sequence[Row],
    stopped: Sequence[Row],
    curves: Curves | str,
    folder: Path,
) -> tuple[Plot, ...]:
    """Draw the plots; returns the images of the report, the gallery included, in their order."""
    assert config.sweep is not None
    metric, space = config.sweep.metric, config.sweep.space
    shown = []
    if isinstance(curves, Curves):
        plots.draw_curves(curves, folder / CURVES.file)
        shown.append(CURVES)
    if len(space) > 1:
        plots.draw_parallel([*ranking, *stopped], metric, space, folder / PARALLEL.file)
        shown.append(PARALLEL_WITH_STOPPED if stopped else PARALLEL)
    return *shown, GALLERY if len(ranking) > 1 else GALLERY_OF_ONE


def _space(config: Config) -> str:
    assert config.sweep is not None
    tree = config.sweep.model_dump(mode="json", exclude_none=True)["space"]
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None).rstrip()
