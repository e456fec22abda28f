"""A sweep of so many trials that do no work, two at a time: plan, queue, journal, Ray Tune."""

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.costs.line import Values, cpu_s, forget_peak, peak_mb, resident_mb
from derain import cluster
from derain.config import Config
from derain.pipelines.train.recording import TrackingTarget
from derain.tune import journal, space
from derain.tune.journal import Journal
from derain.tune.running import queue, ray_tune
from derain.tune.running.worker import Worker
from derain.tune.search.base import Outcome

AT_ONCE = 2


class Idle(Worker):
    """Reports a result as a trained trial does, without training."""

    def step(self) -> dict[str, Any]:
        """The outcome of each trial of the work."""
        work = zip(self._work["names"], self._work["configs"], strict=True)
        outcomes = [_outcome(name, tree) for name, tree in work]
        return {"outcomes": outcomes, "done": True}


def _outcome(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    config = Config.model_validate(tree)
    metrics = {"psnr_y": 30.0, "ssim_y": 0.9}
    result = {"run": config.name, "folder": str(config.folder), "metrics": metrics, "seconds": 0.0}
    steps = config.train.steps
    return asdict(Outcome(name, "finished", steps, metrics, {**result, "steps": steps}))


def measure(trials: int, folder: Path) -> Values:
    """Costs of the driver; the workers' processes are there before it begins to count."""
    config = _config(trials, folder)
    ray_tune.Worker = Idle
    values: dict[str, float] = {}
    with cluster.connected():
        _run(_config(2 * AT_ONCE, folder, name="warm-up"))
        began = time.perf_counter()
        assert len(space.plan(config)) == trials
        values["planning, s"] = time.perf_counter() - began
        forget_peak()
        before, began, used = resident_mb(), time.perf_counter(), cpu_s()
        _run(config)
        values["running, s"] = time.perf_counter() - began
        values["running, s of the driver's core"] = cpu_s() - used
        values["running, MB of the driver's memory"] = peak_mb() - before
    values["journal, MB"] = (config.folder / journal.JOURNAL).stat().st_size / 1e6
    began = time.perf_counter()
    assert queue.restore_queue(config, journal.read(config.folder)).finished
    values["resuming: reading the journal, s"] = time.perf_counter() - began
    return values


def _run(config: Config) -> None:
    config.folder.mkdir(parents=True)
    with Journal.open(config.folder) as record:
        record.write("plan", version=journal.VERSION, name=config.name, ahead=2 * AT_ONCE)
        left = queue.restore_queue(config, record.events)
        target = TrackingTarget(os.environ["MLFLOW_TRACKING_URI"])
        ray_tune.run_trials(config, left, record, target, at_once=AT_ONCE)
        ended = [event for event in record.events if event["event"] == "ended"]
        assert len(ended) == len(space.plan(config))


def _config(trials: int, folder: Path, name: str = "sweep") -> Config:
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    rates = {f"rate-{number:06d}": 1e-6 * (number + 1) for number in range(trials)}
    tree: dict[str, Any] = {
        "name": name,
        "output_dir": str(folder / "runs"),
        "model": {"name": "prenet"},
        "data": {"train": str(folder / "train"), "validation": str(folder / "validation")},
        "train": {"steps": 1, "device": "cpu", "cpu_threads": 1},
        "sweep": {"space": {"train.lr": {"grid": rates}}, "cohort": "off", "concurrent": AT_ONCE},
    }
    return Config.model_validate(tree)
