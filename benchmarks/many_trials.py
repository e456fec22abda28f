"""What a sweep of many trials costs its driver: seconds at two numbers of trials, and the slope.

The folder is that of a sweep whose trials have finished, made without training: each has a config,
a result with the metrics of 100 validation images, metrics of 50 steps and an MLflow id.

look      of the progress display at the trials under way, which happens twice a second
list      `derainctl runs`, and a look of `derainctl watch`
resume    planning, reading the journal and restoring the queue, before anything starts
report    tables, plots and comparisons; the gallery, two networks whatever the number of trials, is
          left out
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._small import NETWORK, write_dataset
from benchmarks.common import Row, main, row
from derain.config import Config
from derain.pipelines.train import progress
from derain.pipelines.train.metrics_file import append_metrics
from derain.pipelines.train.run_folder import IDENTITY, RESULT, note_command, write_json
from derain.training import checkpoint
from derain.tune import journal, space
from derain.tune.journal import Journal
from derain.tune.report import compare, report
from derain.tune.report.gallery import GRID
from derain.tune.results import trial_rows
from derain.tune.running.queue import restore_queue, to_journal
from derain.tune.runs.sweep_state import read_sweep
from derain.tune.search.base import Outcome

TRIALS = (250, 1000)
AT_ONCE, STEPS, IMAGES = 64, 50, 100


def rows(rounds: int, options: argparse.Namespace) -> Sequence[Row]:
    """A row of each cost: seconds at the larger number of trials, beside the smaller one's."""
    measured: dict[int, dict[str, float]] = {}
    for trials in options.trials:
        with tempfile.TemporaryDirectory() as name:
            config = _sweep(Path(name), trials)
            works = _works(config)
            measured[trials] = {what: _median(work, rounds) for what, work in works.items()}
    few, many = options.trials
    return [
        row(
            f"{what}, {many} trials",
            "s",
            seconds,
            {f"{few} trials": measured[few][what]},
            more_is_better=False,
        )
        for what, seconds in measured[many].items()
    ]


def _median(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _works(config: Config) -> dict[str, Callable[[], object]]:
    events = journal.read(config.folder)
    ranking = compare.ranked(trial_rows(config, events), "psnr_y", {})
    under_way = {row["name"]: Path(row["folder"]) for row in ranking[:AT_ONCE]}
    result = {
        "trials": ranking, "best": ranking[0]["name"], "front": [],
        "points": compare.standings(ranking, "psnr_y"),
        "test": None, "registered": None, "register_error": None, "test_error": None,
        "mlflow_run_id": "1", "seconds": 1.0,
    }  # fmt: skip

    def look() -> None:
        display = progress._Lines(STEPS)
        for name, folder in under_way.items():
            display.update(name, progress.read_latest_metrics(folder) or {})

    def resume() -> None:
        space.plan(config)
        restore_queue(config, journal.read(config.folder))

    return {
        "look": look,
        "list": lambda: read_sweep(config.folder, config.name),
        "resume": resume,
        "report": lambda: report.write(config, ranking, result),
    }


def _sweep(folder: Path, trials: int) -> Config:
    """A sweep of random learning rates and weight decays, all of whose trials have finished."""
    config = Config.model_validate(
        {
            "name": "many",
            "output_dir": str(folder / "runs"),
            "model": NETWORK,
            "data": {role: _dataset(folder, role) for role in ("train", "validation")},
            "train": {"steps": STEPS},
            "loss": {"perceptual": "none"},
            "sweep": {
                "space": {
                    "train.lr": {"loguniform": [1e-5, 1e-1]},
                    "train.weight_decay": {"loguniform": [1e-6, 1e-2]},
                },
                "search": "random",
                "samples": trials,
            },
        }
    )
    config.folder.mkdir(parents=True)
    (config.folder / checkpoint.CONFIG).write_text(config.to_yaml())
    (config.folder / report.FOLDER).mkdir()
    (config.folder / report.FOLDER / GRID).touch()  # the gallery
    note_command(config.folder)
    random = np.random.default_rng(0)
    with Journal.open(config.folder) as log:
        log.write("plan", version=1, name="many", ahead=2 * AT_ONCE, manifests=[])
        queue = restore_queue(config, log.events)
        while segment := queue.take():
            log.events.append({"event": "started", **to_journal(segment), "beside": []})
            (trial,) = segment.trials
            outcome = _finished(trial, float(random.normal(30, 1)), random)
            log.events.append({"event": "ended", "key": segment.key, "outcomes": [asdict(outcome)]})
            queue.done(segment.key, [outcome])
        events, log.events = log.events[1:], log.events[:1]
    with (config.folder / journal.JOURNAL).open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    return config


def _finished(trial: space.Trial, psnr: float, random: np.random.Generator) -> Outcome:
    folder = trial.config.folder
    folder.mkdir(parents=True)
    (folder / checkpoint.CONFIG).write_text(trial.config.to_yaml())
    write_json(folder / IDENTITY, {"run_id": "1"})
    for step in range(1, STEPS + 1):
        values = {"loss": 1 / step, "train_psnr": psnr - 1 / step, "steps_per_s": 2.0}
        append_metrics(folder, step, values)
    metrics, given = {"psnr_y": psnr, "ssim_y": 0.9}, {"psnr_y": 25.0, "ssim_y": 0.8}
    scores = psnr + random.normal(0, 1, IMAGES)
    images = [
        {"key": f"{number:03d}", "metrics": {**metrics, "psnr_y": float(score)}, "input": given}
        for number, score in enumerate(scores)
    ]
    result: dict[str, Any] = {
        "run": trial.name, "steps": STEPS, "checkpoint": str(folder / "checkpoints/step-50"),
        "metrics": metrics, "input": given, "protocol": "rain13k v1", "test": None,
        "seconds": 3.0, "weights_sha256": "0", "mlflow_run_id": "1",
        "loss": {"first": 1.0, "last": 0.25},
        "datasets": [{"name": "validation", "manifest_sha256": "abc", "per_picture": images}],
    }  # fmt: skip
    write_json(folder / RESULT, result)
    return Outcome(trial.name, "finished", STEPS, metrics, result, costs={"parameters": 1.0})


def _dataset(folder: Path, name: str) -> str:
    source = folder / f"{name}-source"
    for side in ("rain", "clean"):
        (source / side).mkdir(parents=True)
        for number in range(2):
            seed = number + len(name) + 10 * len(side)
            levels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(levels).save(source / side / f"{number}.png")
    return str(write_dataset(source, folder / name, shards=1).folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--trials", type=int, nargs=2, default=TRIALS, help="two numbers (default: 250 1000)"
    )
    main(rows, parser)
