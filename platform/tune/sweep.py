"""A sweep: many runs under Ray Tune, ranked, reported, the best registered."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.tune
import ray.tune.progress_reporter

from derain import checkpoint, cluster, tracking
from derain.config import Config
from derain.data.loader import open_all
from derain.data.manifest import open_prepared
from derain.errors import DerainError, OccupiedError
from derain.parallel import Rank
from derain.pipelines.prepare import check_data, with_data
from derain.pipelines.progress import watch
from derain.pipelines.register import register
from derain.pipelines.train import (
    RESULT,
    Place,
    check_room,
    claim,
    expected_error,
    read_json,
    record_inputs,
    run_in_this_process,
    run_under_ray_train,
    wants_gpu,
    write_json,
)
from derain.tracking import RunLog
from derain.tune import report, space
from derain.tune.estimate import Pace, measure
from derain.tune.space import Trial

log = logging.getLogger(__name__)

SWEEP = "sweep.json"
"""In the folder of a sweep that has ended."""


def sweep(config: Config) -> dict[str, Any]:
    """Run every trial, rank them, write the report, register the best.

    Returns what `derainctl sweep --json` prints. A failed trial is reported and the others go on.
    Raises DerainError when none finished; nothing is registered then.
    """
    check_data(config)
    config = _placed(config)
    _announce(config, space.plan(config))
    # What is put on `afterwards` is done once Ray and its processes are gone.
    with contextlib.ExitStack() as afterwards, cluster.connected():
        config = with_data(config)
        check_room(config)
        config = config.replaced(_shares(config), "sweep")
        trials = space.plan(config)
        _estimate(config, trials)
        claim(config.folder)
        (config.folder / checkpoint.CONFIG).write_text(config.to_yaml(), encoding="utf-8")
        _warm_cache(config)
        return _recorded(config, trials, afterwards)


def describe(config: Config) -> dict[str, Any]:
    """What `sweep` would do, without doing it: `derainctl sweep --dry-run --json`."""
    trials = space.plan(config)
    with cluster.connected():
        config = config.replaced(_shares(config), "sweep")
        # Nothing can be timed where a trial could not run; the plan is worth seeing all the same.
        timed = cluster.fits(config.train.num_workers, gpu=wants_gpu(config))
        nothing = {"seconds": None, "gpu_hours": None}
        estimate = _estimate(config, space.plan(config)) if timed else nothing
    return {
        "name": config.name,
        "profile": config.profile,
        "trials": [{"name": trial.name, "params": trial.params} for trial in trials],
        "estimate": estimate,
        "config": config.model_dump(mode="json"),
    }


def _placed(config: Config) -> Config:
    """The config with a folder of its own: a sweep that has ended stays, the next gets a number."""
    if not (config.folder / SWEEP).is_file():
        if config.folder.is_dir() and any(config.folder.iterdir()):
            raise OccupiedError(
                f"{config.folder}: holds something that is not a finished sweep. "
                "Remove it, or give another --set name=..."
            )
        return config
    number = 2
    while (Path(config.output_dir) / f"{config.name}-{number}").exists():
        number += 1
    name = f"{config.name}-{number}"
    log.info("sweep: %s is there already and stays; this one is %s", config.folder, name)
    return config.replaced({"name": name}, "sweep")


def _announce(config: Config, trials: Sequence[Trial]) -> None:
    train = config.train
    log.info(
        "sweep %s, profile %s: %d trials of %d steps (%s, %d crops of %d px a step), results in %s",
        config.name, config.profile or "none", len(trials), train.steps, config.model.name,
        train.batch_size, train.crop_px, config.folder,
    )  # fmt: skip
    if getattr(config.model, "encoder_weights", None) == "random":
        log.info("The encoder has random weights: its figures are not comparable with the paper's.")


def _shares(config: Config) -> dict[str, Any]:
    """How many trials at once, and each one's threads, as the cluster's size allows."""
    assert config.sweep is not None
    workers = config.train.num_workers
    slots = cluster.gpus() if wants_gpu(config) else cluster.cpus()
    concurrent = config.sweep.concurrent or max(1, slots // workers)
    threads = config.train.cpu_threads or max(1, cluster.cpus() // (concurrent * workers))
    return {"sweep.concurrent": concurrent, "train.cpu_threads": threads}


def _estimate(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """Seconds and GPU-hours of the whole sweep, from a few steps timed where a trial would run."""
    assert config.sweep is not None
    assert config.sweep.concurrent is not None
    gpus = 1 if wants_gpu(config) else 0
    task = ray.remote(_measure).options(num_cpus=1, num_gpus=gpus, max_retries=0)
    try:
        pace = Pace(*ray.get(task.remote(trials[0].config.model_dump(mode="json"))))
    except ray.exceptions.RayTaskError as error:
        raise expected_error(error) or DerainError(f"No trial can run: {error.cause}") from error
    pairs = sum(_pairs(folder) for folder in config.data.eval)
    if not config.data.eval and config.data.synthetic is not None:
        pairs = config.data.synthetic.eval_pairs
    rounds = math.ceil(len(trials) / config.sweep.concurrent)
    seconds = rounds * pace.trial_seconds(config, pairs)
    log.info(
        "sweep: about %.0f minutes (%.0f ms a step, %d trials at once)",
        max(1, seconds / 60), pace.seconds_a_step * 1000, config.sweep.concurrent,
    )  # fmt: skip
    busy = len(trials) * pace.trial_seconds(config, pairs)
    return {"seconds": seconds, "gpu_hours": gpus * config.train.num_workers * busy / 3600}


def _measure(tree: dict[str, Any]) -> tuple[float, float]:
    pace = measure(Config.model_validate(tree))
    return pace.seconds_a_step, pace.seconds_a_picture


def _pairs(folder: str) -> int:
    return open_prepared(folder).manifest.pairs


def _warm_cache(config: Config) -> None:
    """Decode once before the trials start, where they share this machine's disk."""
    if "RAY_ADDRESS" not in os.environ:
        open_all([open_prepared(p) for p in (*config.data.train, *config.data.eval)], config.data)


def _recorded(
    config: Config, trials: Sequence[Trial], afterwards: contextlib.ExitStack
) -> dict[str, Any]:
    """Run the trials below one MLflow run of the sweep, and record there what came of them.

    A trial that is being killed can still open a run, so those left open are ended `afterwards`.
    """
    uri = tracking.prepare_store()
    began = time.monotonic()
    with RunLog(config.name, uri=uri, tags={"derain.kind": "sweep"}) as record:
        record_inputs(config, record)
        afterwards.callback(tracking.end_children, record.run_id, uri)
        results = _run_trials(config, trials, Place(uri, record.run_id))
        result = _conclude(config, trials, results, record)
    result["seconds"] = time.monotonic() - began
    write_json(config.folder / SWEEP, result)
    return result


def _run_trials(
    config: Config, trials: Sequence[Trial], place: Place
) -> list[dict[str, Any] | str]:
    """The result of each trial, or the error that ended it."""
    # Ray Tune's own handler would swallow Ctrl-C and return half a sweep as if it were whole.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables would stand between our lines
    payloads = [trial.config.model_dump(mode="json") for trial in trials]
    assert config.sweep is not None
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            ray.tune.with_parameters(_trial, payloads=payloads, place=asdict(place)),
            _resources(config),
        ),
        param_space={"trial": ray.tune.grid_search(list(range(len(trials))))},
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=config.sweep.concurrent),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=str(config.folder / "ray"),
            verbose=0,
            callbacks=[_Silent()],
        ),
    )
    with watch({trial.name: trial.config.folder for trial in trials}, config.train.steps):
        grid = tuner.fit()
    found: dict[int, dict[str, Any] | str] = {}
    for result in grid:
        number = result.config["trial"]
        found[number] = _outcome(trials[number], result.error)
    return [found.get(number, "did not start") for number in range(len(trials))]


class _Silent(ray.tune.progress_reporter.TrialProgressCallback):
    """In the place of Ray Tune's own, which prints a line at the end of a trial."""

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Say nothing: `watch` shows the runs."""


def _outcome(trial: Trial, error: BaseException | None) -> dict[str, Any] | str:
    if error is None:
        return read_json(trial.config.folder / RESULT)
    reason = str(expected_error(error) or error)
    log.error("trial %s failed: %s", trial.name, reason)
    return reason


def _resources(config: Config) -> dict[str, float]:
    """A trial of one worker is the run itself; with more, the workers ask for their own."""
    if config.train.num_workers > 1:
        return {"memory": 1}  # a byte: a share of a core would keep the last worker waiting
    return {
        "cpu": config.train.cpu_threads or 1,
        "gpu": 1 if wants_gpu(config) else 0,
    }


def _trial(chosen: Mapping[str, int], payloads: list[dict], place: dict[str, Any]) -> None:
    """What Ray Tune runs in a trial's process."""
    config = Config.model_validate(payloads[chosen["trial"]])
    if config.train.num_workers > 1:
        run_under_ray_train(config, Place(**place))
    else:
        run_in_this_process(config, Place(**place), Rank())
    ray.tune.report({})


def _conclude(
    config: Config,
    trials: Sequence[Trial],
    results: Sequence[dict[str, Any] | str],
    record: RunLog,
) -> dict[str, Any]:
    """Rank, register the best, write the report."""
    assert config.sweep is not None
    metric = config.sweep.metric
    rows = [_row(trial, result) for trial, result in zip(trials, results, strict=True)]
    ranking = sorted(
        (row for row in rows if row["status"] == "finished"),
        key=lambda row: row["metrics"][metric],
        reverse=True,
    )
    if not ranking:
        raise DerainError(f"{config.name}: no trial finished. The first error: {rows[0]['error']}")
    best = ranking[0]
    registered = None
    if config.register_ is not None:
        done = register(best["checkpoint"], config.register_.name)
        registered = {"name": done.name, "version": done.version, "alias": done.alias}
    result = {
        "name": config.name,
        "profile": config.profile,
        "trials": rows,
        "best": best["name"],
        "registered": registered,
        "report": str(config.folder / report.MARKDOWN),
        "mlflow_run_id": record.run_id,
        "folder": str(config.folder),
    }
    report.write(config, ranking, result, report.compared(config, ranking))
    record.folder(config.folder / report.FOLDER, report.FOLDER)
    record.metrics(0, {f"best_{name}": value for name, value in best["metrics"].items()})
    return result


def _row(trial: Trial, result: dict[str, Any] | str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": trial.name,
        "params": trial.params,
        "seed": trial.config.seed,
        "folder": str(trial.config.folder),
    }
    if isinstance(result, str):
        nothing = {"metrics": None, "input": None, "seconds": None, "mlflow_run_id": None}
        return {**row, "status": "failed", "error": result, **nothing}
    kept = ("metrics", "input", "seconds", "mlflow_run_id", "checkpoint", "loss", "weights_sha256")
    return {**row, "status": "finished", **{key: result[key] for key in kept}}
