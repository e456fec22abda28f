"""`train`: one run under Ray Train, new or resumed."""

import logging
from collections.abc import Iterator
from typing import Any

from derain import cluster
from derain.config import Config
from derain.errors import DerainError
from derain.pipelines.sigterm import saving_at_sigterm, stopping_at_sigterm
from derain.pipelines.train.checks import caught, check_before_start, check_space, raise_first
from derain.pipelines.train.datasets import with_data
from derain.pipelines.train.progress import show_progress
from derain.pipelines.train.recording import end_early_run, find_target, recorded
from derain.pipelines.train.resume import check_same_training
from derain.pipelines.train.run_folder import (
    RESULT,
    check_unused,
    claim,
    clear,
    has_begun,
    note_command,
    noting_failure,
    read_json,
)
from derain.pipelines.train.workers import check_resources, run_under_ray_train
from derain.tracking.store import check_store
from derain.training import checkpoint
from derain.training.averaging import warn_of_initial_weights

log = logging.getLogger(__name__)


def train(config: Config) -> dict[str, Any]:
    """Train a new run in `config.folder`; returns what `derainctl train --json` prints.

    What a start that came to no checkpoint has left there is removed. Raises OccupiedError if the
    folder is in use.
    """
    raise_first(problems_before_ray(config))
    warn_of_initial_weights([config.train])
    claim(config)
    with checkpoint.command_lock(config.folder):
        claim(config)  # again, as another command may have been faster
        end_early_run(config)
        clear(config.folder)
        return _train(config)


def problems_before_ray(config: Config) -> Iterator[DerainError]:
    """What keeps a new run from starting, checked before Ray: name, store, data, network, weights.

    `train` raises the first, `train --dry-run` lists all.
    """
    yield from caught(check_unused, config)
    yield from caught(check_store)
    yield from caught(check_before_start, [config])


def problems_on_cluster(config: Config) -> Iterator[DerainError]:
    """What keeps a run from starting, checked on the connected Ray: device, room, shared folders,
    disk space."""
    yield from caught(check_resources, config)
    yield from caught(check_space, [config])


def problems_to_resume(config: Config) -> Iterator[DerainError]:
    """What keeps a run from being resumed, checked before Ray."""
    yield from caught(_check_resumable, config)
    yield from caught(check_before_start, [config])


def _check_resumable(config: Config) -> None:
    with checkpoint.command_lock(config.folder):
        saved = checkpoint.newest(config.folder)
        if saved is not None:
            check_same_training(saved, config)


def resume(config: Config) -> dict[str, Any]:
    """Continue the run in `config.folder` from its newest complete checkpoint, or begin it if it
    has never come to one.

    Raises UsageError if the config would change what is trained, and OccupiedError if another
    command is training the run.
    """
    if not has_begun(config.folder):
        return train(config)
    with checkpoint.command_lock(config.folder):
        saved = checkpoint.newest(config.folder)
        if saved is None:
            log.warning("train: %s has no intact checkpoint and starts over", config.name)
        else:
            check_same_training(saved, config)
            log.info("train: resuming %s after step %d", config.name, saved.state.step)
        check_before_start([config])
        warn_of_initial_weights([config.train])
        return _train(config)


def _train(config: Config) -> dict[str, Any]:
    note_command(config.folder)
    stopped = f"{config.name}: stopped. Continue with --resume {config.name}."
    with noting_failure(config.folder), cluster.connected(), stopping_at_sigterm(stopped):
        config = with_data(config)
        raise_first(problems_on_cluster(config))
        target = find_target(config)
        # Recorded here and in the worker: a worker that is killed cannot end its own MLflow run.
        with (
            saving_at_sigterm(config.folder),
            recorded(config, target),
            show_progress(lambda: {config.name: config.folder}, config.train.steps),
        ):
            run_under_ray_train(config, target)
        return read_json(config.folder / RESULT)
