"""What a trial costs beyond its training, and what ASHA saves.

overhead   worker-seconds per trial that are not the trial's own (from its MLflow run to its
           result), in a sweep of 30 trials whose workers are kept; `tune`: the same trials as
           plain Ray Tune function trainables, each in a new process; `optuna`: as objectives of a
           study in memory, one after the other in this process; `optuna_process`: the same, two
           at once, each in a new process
ASHA       training steps of 16 trials, against those of the whole grid, and whether both find the
           same winner
"""

import contextlib
import itertools
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray.tune

from benchmarks._small import NETWORK, rendered_datasets
from benchmarks.common import Row, main, row, take_turns
from derain import cluster
from derain.config import Config
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.run import run_in_this_process
from derain.pipelines.train.run_folder import RESULT, read_json
from derain.tracking.store import prepare_store, tracking_uri
from derain.training.process.distributed import Rank
from derain.tune import space
from derain.tune.journal import Journal
from derain.tune.running import queue, ray_tune
from derain.tune.sweep import sweep

AT_ONCE = 2
KEPT, FRESH = 30, 6
"""Trials per round: a new process takes seconds, so fewer trials measure it as well."""


def rows(rounds: int) -> list[Row]:
    """The row of each measurement."""
    logging.getLogger("derain").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch, _store(Path(scratch)), cluster.connected():
        base = base_config(Path(scratch))
        return [_overhead(base, rounds), _halving(base)]


def _overhead(base: Config, rounds: int) -> Row:
    works = {
        "ours": (_kept, KEPT),
        "tune": (_fresh, FRESH),
        "optuna": (_optuna, KEPT),
        "optuna_process": (_optuna_processes, FRESH),
    }
    names = itertools.count()

    def work(run: Callable[[Config], float], trials: int) -> float:
        return run(_grid(base, f"overhead-{next(names)}", trials))

    turns = {who: partial(work, *of) for who, of in works.items()}
    medians = {who: statistics.median(s) for who, s in take_turns(turns, rounds).items()}
    return row(
        f"overhead per trial, {KEPT} trials of 4 steps",
        "s",
        medians.pop("ours"),
        medians,
        more_is_better=False,
    )


def _kept(config: Config) -> float:
    config.folder.mkdir(parents=True)
    with Journal.open(config.folder) as journal:
        journal.write("plan", version=1, name=config.name, ahead=2 * AT_ONCE)
        start = time.perf_counter()
        left = queue.restore_queue(config, journal.events)
        ray_tune.run_trials(config, left, journal, TrackingTarget(tracking_uri()), at_once=AT_ONCE)
        return _overhead_s(config, time.perf_counter() - start)


def _fresh(config: Config) -> float:
    payloads = [trial.config.model_dump(mode="json") for trial in space.plan(config)]
    target = asdict(TrackingTarget(tracking_uri()))

    def trial(chosen: dict[str, int]) -> None:
        _train(payloads[chosen["number"]], target)
        ray.tune.report({})

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(trial, {"cpu": 1}),
        param_space={"number": ray.tune.grid_search(list(range(len(payloads))))},
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=AT_ONCE),
        run_config=ray.tune.RunConfig(storage_path=str(config.folder / "ray"), verbose=0),
    )
    start = time.perf_counter()
    tuner.fit()
    return _overhead_s(config, time.perf_counter() - start)


def _optuna(config: Config) -> float:
    return _study(config, _train, at_once=1)


def _optuna_processes(config: Config) -> float:
    """Threads of the study wait for the processes, as its documentation has it."""
    spawn = multiprocessing.get_context("spawn")

    def train(payload: dict[str, Any], target: dict[str, Any]) -> None:
        process = spawn.Process(target=_train, args=(payload, target))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a trial's process ended with {process.exitcode}")

    return _study(config, train, at_once=AT_ONCE)


def _study(config: Config, train: Callable[..., None], *, at_once: int) -> float:
    payloads = [trial.config.model_dump(mode="json") for trial in space.plan(config)]
    target = asdict(TrackingTarget(tracking_uri()))

    def objective(trial: optuna.Trial) -> float:
        number = trial.suggest_categorical("number", numbers)
        train(payloads[number], target)
        result = read_json(Path(payloads[number]["output_dir"], payloads[number]["name"], RESULT))
        return float(result["loss"]["last"])

    numbers = list(range(len(payloads)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"number": numbers}))
    start = time.perf_counter()
    study.optimize(objective, n_trials=len(payloads), n_jobs=at_once)
    return _overhead_s(config, time.perf_counter() - start, at_once)


def _train(payload: dict[str, Any], target: dict[str, Any]) -> None:
    config = Config.model_validate(payload)
    run_in_this_process(config, TrackingTarget(**target), Rank())


def _overhead_s(config: Config, seconds: float, at_once: int = AT_ONCE) -> float:
    """Worker-seconds per trial that no trial counts as its own."""
    trials = space.plan(config)
    own = [read_json(trial.config.folder / RESULT)["seconds"] for trial in trials]
    return seconds * at_once / len(trials) - statistics.fmean(own)


def _halving(base: Config) -> Row:
    rates = {f"rate-{n:02d}": float(rate) for n, rate in enumerate(np.geomspace(1e-5, 1e-1, 16))}
    searched = {"space": {"train.lr": {"grid": rates}}, "concurrent": AT_ONCE}
    results = {}
    for search in ("grid", "asha"):
        values = {
            "name": search,
            "train.steps": 256,
            "sweep": {**searched, "search": search, "asha": {"first_steps": 32, "keep_one_in": 2}},
        }
        results[search] = sweep(base.replaced(values, "benchmark"))
    steps = {name: sum(t["steps"] for t in result["trials"]) for name, result in results.items()}
    same = results["grid"]["best"] == results["asha"]["best"]
    return row(
        f"ASHA, 16 trials, {'the same' if same else 'A DIFFERENT'} winner",
        "steps",
        steps["asha"],
        {"grid": steps["grid"]},
        more_is_better=False,
    )


def _grid(base: Config, name: str, count: int) -> Config:
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-2, count)]
    values = {"name": name, "sweep": {"space": {"train.lr": {"grid": rates}}, "cohort": "off"}}
    return base.replaced(values, "benchmark")


def base_config(folder: Path) -> Config:
    """A small network on rendered rain: nothing is downloaded."""
    train, held_out = rendered_datasets(folder, train=32, held_out=4, size_px=64)
    tree: dict[str, Any] = {
        "name": "base",
        "output_dir": str(folder / "runs"),
        "model": NETWORK,
        "data": {
            "train": str(train),
            "validation": str(held_out),
            "cache_dir": str(folder / "cache"),
        },
        "train": {"steps": 4, "batch_size": 4, "crop_px": 32, "device": "cpu", "cpu_threads": 1},
        "loss": {"pixel": "mse", "perceptual": "none"},
    }
    return Config.model_validate(tree)


@contextlib.contextmanager
def _store(folder: Path) -> Iterator[None]:
    """A new MLflow store in `folder`, instead of the user's."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = prepare_store(f"sqlite:///{folder}/mlflow.db")
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


if __name__ == "__main__":
    main(rows)
