"""Training under Ray Train: 1 to N workers, each with its part of one run."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

from derain import cluster
from derain.config import Config
from derain.errors import DerainError, UsageError
from derain.pipelines.train import faults
from derain.pipelines.train.inputs import check_data, with_data
from derain.pipelines.train.progress import watch
from derain.pipelines.train.resume import check_same_training, claim
from derain.pipelines.train.run import (
    IDENTITY,
    RESULT,
    TrackingTarget,
    read_json,
    recorded,
    run_in_this_process,
)
from derain.tracking import store
from derain.training import checkpoint
from derain.training.process.distributed import Rank

log = logging.getLogger(__name__)


def train(config: Config) -> dict[str, Any]:
    """One new run in `config.folder`; returns what `derainctl train --json` prints.

    Raises OccupiedError when the folder holds something already.
    """
    check_data(config)
    claim(config)
    with checkpoint.commanding(config.folder):
        claim(config)  # another command may have been quicker
        return _train(config)


def resume(config: Config) -> dict[str, Any]:
    """Continue the run in `config.folder` after its newest whole checkpoint.

    Raises UsageError when the config would train something else than the run did, and OccupiedError
    while the run is trained.
    """
    with checkpoint.commanding(config.folder):
        saved = checkpoint.newest(config.folder)
        if saved is None:
            log.info("train: %s has no checkpoint yet and begins again", config.name)
        else:
            check_same_training(saved, config)
            log.info("train: resuming %s after step %d", config.name, saved.state.step)
        return _train(config)


def _train(config: Config) -> dict[str, Any]:
    with cluster.connected():
        config = with_data(config)
        check_room(config)
        target = target_of(config)
        # Recorded here and in the worker: a worker that is killed cannot end its own MLflow run.
        with (
            faults.stopping_at_sigterm(config.folder),
            recorded(config, target),
            watch({config.name: config.folder}, config.train.steps),
        ):
            run_under_ray_train(config, target)
        return read_json(config.folder / RESULT)


def target_of(config: Config) -> TrackingTarget:
    """Where a run is recorded. Raises StorageError for a store that is away, unless the run has its
    MLflow run: it goes on, and what it records is sent later."""
    known = (config.folder / IDENTITY).is_file()
    return TrackingTarget(store.tracking_uri() if known else store.prepare_store())


def check_room(config: Config) -> None:
    """Raise UsageError where Ray would wait forever for the cores or GPUs of the workers."""
    gpu, workers = wants_gpu(config), config.train.min_workers
    if not cluster.fits(workers, gpu=gpu):
        kind, there = ("GPUs", cluster.gpus()) if gpu else ("CPU cores", cluster.cpus())
        raise UsageError(
            f"train.num_workers={workers} needs {workers} {kind}, Ray has {there} here. Name a "
            "cluster in RAY_ADDRESS, or give --set train.num_workers=... or train.device=cpu."
        )


def wants_gpu(config: Config) -> bool:
    """True when the run's workers need a GPU each; `auto` takes them where the cluster has any."""
    return config.train.device == "cuda" or (config.train.device == "auto" and cluster.gpus() > 0)


def run_under_ray_train(config: Config, target: TrackingTarget, until: int | None = None) -> None:
    """The run on `train.num_workers` workers of the connected Ray, as `run_in_this_process`."""
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "target": asdict(target),
            "until": until,
        },
        scaling_config=faults.scaling(config.train, gpu=wants_gpu(config)),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(config.folder / "ray"),
            failure_config=faults.failing(config.train),
        ),
    )
    faults.forget(config.folder)
    try:
        _interruptible(trainer.fit)
    except ray.train.TrainingFailedError as error:
        faults.check(config.folder, config.name)
        raise DerainError(f"Training failed: {error}") from error
    faults.check(config.folder, config.name)


def _interruptible(fit: Callable[[], object]) -> None:
    """Call `fit` beside the main thread, where Ray Train would take Ctrl-C and exit with 1."""
    done: Future[object] = Future()

    def call() -> None:
        try:
            done.set_result(fit())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    done.result()


def _worker(payload: dict[str, Any]) -> None:
    """What Ray Train runs in every worker process."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    config = Config.model_validate(payload["config"])
    if faults.was_noted(config.folder):
        return
    with faults.expected_errors_noted(config.folder, rank.world):
        run_in_this_process(
            config,
            TrackingTarget(**payload["target"]),
            rank,
            payload["until"],
            faults.preemption_is_near,
        )


def expected_error(error: BaseException) -> DerainError | None:
    """The error of ours that Ray wrapped, if it was one."""
    wrapped = list((getattr(error, "worker_failures", None) or {}).values())
    for inner in (*wrapped, getattr(error, "cause", None), error.__cause__):
        found = inner if isinstance(inner, DerainError) else inner and expected_error(inner)
        if found:
            return found
    return None
