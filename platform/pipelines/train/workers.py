"""A run on Ray Train's workers: what they need, how they start, what each of them does."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer

from derain import cluster
from derain.config import Config
from derain.errors import DerainError, StoppedError, UsageError
from derain.pipelines import nodes
from derain.pipelines.deaths import out_of_memory
from derain.pipelines.plugins_on_nodes import check_plugins_on_nodes
from derain.pipelines.shared_places import check_shared_places
from derain.pipelines.train import worker_failures
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.run import run_in_this_process
from derain.pipelines.watching.log_lines import log_lines_of
from derain.storage.refusals import expected
from derain.training.process import interrupt
from derain.training.process.distributed import Rank

STOP_POLL_S = 2.0


def uses_gpu(config: Config) -> bool:
    """True if each of the run's workers needs a GPU; with `auto` if the cluster has any."""
    device = config.train.device
    return device == "cuda" or (device == "auto" and nodes.has_gpus())


def needs(config: Config) -> tuple[float, float]:
    """The CPU cores and GPUs that Ray reserves for each worker of a run, or of a sweep's trials.

    Ray Train's workers on a GPU reserve no cores, as machines have many more of these than of GPUs.
    A trial of one worker runs in a process of Ray Tune, which reserves its threads.
    """
    gpu = uses_gpu(config)
    if config.sweep is None or config.train.max_workers > 1:
        return (0, 1) if gpu else (1, 0)
    return config.train.cpu_threads or 1, config.sweep.gpu_fraction if gpu else 0


def check_resources(config: Config, trials: Sequence[Config] = ()) -> None:
    """Raise UsageError if Ray would wait forever for the cores or GPUs of the workers, or if a node
    does not see the run's folders or lacks a plug-in; for a sweep those of its `trials`."""
    check_shared_places(config)
    plugins = [run.plugins for run in trials or [config]]
    check_plugins_on_nodes({name: key for each in plugins for key, name in each.items()})
    (cpus, gpus), workers = needs(config), config.train.min_workers
    if nodes.can_start(workers, cpus=cpus, gpus=gpus):
        return
    kind, available = ("GPUs", cluster.gpus()) if gpus else ("CPU cores", cluster.cpus())
    each = f"{cpus:g} CPU cores" + (f" and {gpus:g} GPUs" if gpus else "")
    raise UsageError(
        f"train.num_workers={workers} needs {workers} {kind}, but Ray has {available} here. "
        f"Each worker needs {each} on one machine: {nodes.listed()}. "
        "Set RAY_ADDRESS to a cluster, or give --set train.num_workers=..., "
        "train.cpu_threads=... or train.device=cpu."
    )


def run_under_ray_train(config: Config, target: TrackingTarget, until: int | None = None) -> None:
    """Train on `train.num_workers` workers of the connected Ray, each as `run_in_this_process`.

    Raises the expected error that ended the run; DerainError for any other failure.
    """
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            # In Ray's memory, as the store's address may have a password: Ray may write the rest.
            "target": ray.put(asdict(target)),
            "until": until,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.train.num_workers, use_gpu=uses_gpu(config)
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(config.folder / "ray"),
            failure_config=worker_failures.failure_config(config.train),
        ),
    )
    worker_failures.forget(config.folder)
    try:
        with nodes.logging_waits():
            _call_in_thread(trainer.fit, config)
    except ray.train.TrainingFailedError as error:
        worker_failures.raise_noted(config.folder, config.name)
        reason = out_of_memory(str(error)) or error
        raise expected(error) or DerainError(f"Training failed: {reason}") from error
    worker_failures.raise_noted(config.folder, config.name)


def _call_in_thread(fit: Callable[[], object], config: Config) -> None:
    """Call `fit` outside the main thread, in which Ray Train would catch Ctrl-C and exit with 1.

    Raises StoppedError if the run is asked to stop while no machine has room for its workers, which
    could save nothing.
    """
    done: Future[object] = Future()

    def call() -> None:
        try:
            done.set_result(fit())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    while not wait([done], STOP_POLL_S).done:
        if interrupt.stop_requested(config.folder) and nodes.waited_for():
            raise StoppedError(
                f"{config.name}: stopped while it waited for machines. Continue with --resume "
                f"{config.name}."
            )
    done.result()


def _work(payload: dict[str, Any]) -> None:
    """What Ray Train runs in every worker process."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    config = Config.model_validate(payload["config"])
    if worker_failures.is_noted(config.folder):
        return
    target = TrackingTarget(**ray.get(payload["target"]))
    with (
        log_lines_of([config], rank, trials=target.parent_run_id is not None),
        worker_failures.noting_expected_errors(config.folder, rank.world),
    ):
        run_in_this_process(
            config, target, rank, payload["until"], worker_failures.is_preemption_near
        )
