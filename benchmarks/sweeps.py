"""What a trial costs beside its training, and what ASHA saves.

overhead   worker-seconds a trial beyond the trial's own, from its MLflow run to its result, in
           a sweep of 30 trials whose workers are kept; `tune`: the same trials as plain Ray Tune
           function trainables, each in a fresh process
ASHA       training steps of 16 trials, beside the whole grid's, and whether both find the same
           winner
"""

import contextlib
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray.tune

from benchmarks.common import Row, main, row
from derain import cluster
from derain.config import Config
from derain.data.synthetic.synthesis import synthesize
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.train.run import RESULT, Place, read_json, run_in_this_process
from derain.tracking.store import prepare_store, tracking_uri
from derain.training.process.distributed import Rank
from derain.tune import space
from derain.tune.journal import Journal
from derain.tune.running import queue, supply
from derain.tune.sweep import sweep

AT_ONCE = 2
KEPT, FRESH = 30, 6
"""Trials of a round: a fresh process takes seconds, so fewer of them say the same."""


def rows(rounds: int) -> list[Row]:
    """Both figures."""
    logging.getLogger("derain").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch, _store(Path(scratch)), cluster.connected():
        base = _base(Path(scratch))
        return [_overhead(base, rounds), _halving(base)]


def _overhead(base: Config, rounds: int) -> Row:
    kept, fresh = [], []
    for number in range(rounds):
        kept.append(_kept(_grid(base, f"kept-{number}", KEPT)))
        fresh.append(_fresh(_grid(base, f"fresh-{number}", FRESH)))
    return row(
        f"overhead a trial, {KEPT} trials of 4 steps",
        "s",
        statistics.median(kept),
        {"tune": statistics.median(fresh)},
        more_is_better=False,
    )


def _kept(config: Config) -> float:
    config.folder.mkdir(parents=True)
    with Journal.open(config.folder) as journal:
        journal.write("plan", version=1, name=config.name, ahead=2 * AT_ONCE)
        began = time.perf_counter()
        left = queue.restored(config, journal.events)
        supply.train(config, left, journal, Place(tracking_uri()), at_once=AT_ONCE)
        return _beyond(config, time.perf_counter() - began)


def _fresh(config: Config) -> float:
    payloads = [trial.config.model_dump(mode="json") for trial in space.plan(config)]
    place = asdict(Place(tracking_uri()))

    def trial(chosen: dict[str, int]) -> None:
        config = Config.model_validate(payloads[chosen["number"]])
        run_in_this_process(config, Place(**place), Rank())
        ray.tune.report({})

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(trial, {"cpu": 1}),
        param_space={"number": ray.tune.grid_search(list(range(len(payloads))))},
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=AT_ONCE),
        run_config=ray.tune.RunConfig(storage_path=str(config.folder / "ray"), verbose=0),
    )
    began = time.perf_counter()
    tuner.fit()
    return _beyond(config, time.perf_counter() - began)


def _beyond(config: Config, seconds: float) -> float:
    """Worker-seconds a trial that no trial counts as its own."""
    trials = space.plan(config)
    own = [read_json(trial.config.folder / RESULT)["seconds"] for trial in trials]
    return seconds * AT_ONCE / len(trials) - statistics.fmean(own)


def _halving(base: Config) -> Row:
    rates = {f"rate-{n:02d}": float(rate) for n, rate in enumerate(np.geomspace(1e-5, 1e-1, 16))}
    searched = {"space": {"train.lr": {"grid": rates}}, "concurrent": AT_ONCE}
    found = {}
    for search in ("grid", "asha"):
        values = {
            "name": search,
            "train.steps": 256,
            "sweep": {**searched, "search": search, "asha": {"first_steps": 32, "keep_one_in": 2}},
        }
        found[search] = sweep(base.replaced(values, "benchmark"))
    steps = {name: sum(t["steps"] for t in result["trials"]) for name, result in found.items()}
    same = found["grid"]["best"] == found["asha"]["best"]
    return row(
        f"ASHA, 16 trials, {'the same' if same else 'ANOTHER'} winner",
        "steps",
        steps["asha"],
        {"grid": steps["grid"]},
        more_is_better=False,
    )


def _grid(base: Config, name: str, count: int) -> Config:
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-2, count)]
    values = {"name": name, "sweep": {"space": {"train.lr": {"grid": rates}}, "cohort": "off"}}
    return base.replaced(values, "benchmark")


def _base(folder: Path) -> Config:
    """A small network on rendered rain, without any download."""
    prepared: dict[str, str] = {}
    for part, count in (("train", 32), ("held_out", 4)):
        synthesize(None, folder / part, count=count, seed=0, density="mixed", size_px=64, part=part)
        prepare("paired", folder / part, folder / "prepared" / part, split=part)
        prepared[part] = str(folder / "prepared" / part)
    tree: dict[str, Any] = {
        "name": "base",
        "output_dir": str(folder / "runs"),
        "model": {
            "name": "fclip_unet",
            "encoder_weights": "random",
            "encoder_width": 4,
            "encoder_layers": [1, 1, 1, 1],
            "decoder_widths": [8, 8, 8, 8, 8],
            "decoder_depths": [1, 1, 1, 1, 1],
            "layer_scale": 0.1,
            "output": "residual",
        },
        "data": {
            "train": prepared["train"],
            "eval": prepared["held_out"],
            "cache_dir": str(folder / "cache"),
        },
        "train": {"steps": 4, "batch_size": 4, "crop_px": 32, "device": "cpu", "cpu_threads": 1},
        "loss": {"pixel": "mse", "perceptual": "none"},
    }
    return Config.model_validate(tree)


@contextlib.contextmanager
def _store(folder: Path) -> Iterator[None]:
    """An MLflow store of its own."""
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
