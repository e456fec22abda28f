"""A sweep: many runs under Ray Tune, ranked and reported, the best one registered.

<sweep>/config.yaml      resolved
<sweep>/journal.jsonl    what was started and what came of it (`journal.py`); a resume reads it
<sweep>/<trial>/         the run of each trial
<sweep>/report/          tables, plots and gallery, written at the end
<sweep>/sweep.json       what `derainctl sweep --json` prints, written before the best is registered
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from derain import cluster
from derain.config import Config
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.roles import ROLES, open_role, open_training, open_validation
from derain.errors import DerainError, UsageError
from derain.pipelines.sigterm import stopping_at_sigterm
from derain.pipelines.train.checks import caught, check_before_start, check_space, raise_first
from derain.pipelines.train.datasets import with_data
from derain.pipelines.train.recording import TrackingTarget, record_inputs
from derain.pipelines.train.run_folder import (
    FAILURE,
    claim,
    note_command,
    noting_failure,
    read_json,
)
from derain.pipelines.train.workers import check_resources
from derain.storage.amounts import counted
from derain.storage.output_paths import check_folder
from derain.tracking import runs, store
from derain.tracking.address import hidden
from derain.tracking.outbox import OUTBOX_FOLDER, unsent_names
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.training.averaging import warn_of_initial_weights
from derain.tune import space
from derain.tune.early import check_new, config_to_begin, remove_early
from derain.tune.estimate import estimate
from derain.tune.journal import VERSION, Journal
from derain.tune.results import SWEEP, finish_sweep
from derain.tune.resume import config_to_resume, is_complete
from derain.tune.running.capacity import trials_at_once, with_cpu_threads
from derain.tune.running.queue import restore_queue
from derain.tune.running.ray_tune import run_trials
from derain.tune.search.algorithms import first_comparison
from derain.tune.space import Trial

log = logging.getLogger(__name__)


def sweep(config: Config) -> dict[str, Any]:
    """Run every trial, rank them, write the report, and then register the best.

    Returns what `derainctl sweep --json` prints. A failed trial is reported and the others
    continue. Raises DerainError, and registers nothing, if none finished.
    """
    config = with_new_folder(config)
    trials = space.plan(config)
    _announce(config, trials)
    raise_first(problems_before_ray(config, trials))
    # The callbacks on `after_ray` run once Ray and its processes have ended.
    with contextlib.ExitStack() as after_ray, cluster.connected():
        config = with_data(config)
        raise_first(problems_on_cluster(config, space.plan(config)))
        config = with_cpu_threads(config)
        estimated = estimate(config, trials_at_once(config), len(space.plan(config)))
        remove_early(config)
        claim(config)
        return _run(config, after_ray, estimated["shared"])


def resume(
    name: str, new_config: Config | None, output_dir: str, overrides: Mapping[str, Any]
) -> dict:
    """Continue the sweep `name` from the end of its journal, with the config it was started with.

    `new_config` may extend the space. Finished trials are kept, the others continue from their
    checkpoints. A sweep without a checkpoint begins with `new_config`, if that is given. Raises
    UsageError if a planned trial or another key would change.
    """
    if (begins := config_to_begin(name, new_config)) is not None:
        return sweep(begins)
    config = config_to_resume(Path(output_dir) / name, new_config, overrides)
    if is_complete(config):
        log.info("sweep: %s has finished; there is nothing left to do", config.folder)
        return read_json(config.folder / SWEEP)
    trials = space.plan(config)
    _announce(config, trials)
    check_before_start([trial.config for trial in trials])
    with contextlib.ExitStack() as after_ray, cluster.connected():
        raise_first(problems_on_cluster(config, trials))
        return _run(config, after_ray)


def problems_before_ray(config: Config, trials: Sequence[Trial]) -> Iterator[DerainError]:
    """What keeps a new sweep from starting, checked before Ray: folder, store, data, networks,
    weights. `sweep` raises the first, `sweep --dry-run` lists all."""
    yield from caught(check_folder, config.folder)
    yield from caught(store.check_store)
    yield from caught(check_before_start, [trial.config for trial in trials])


def problems_on_cluster(config: Config, trials: Sequence[Trial]) -> Iterator[DerainError]:
    """What keeps a sweep from starting, checked on the connected Ray: device, room, shared folders,
    disk space."""
    configs = [trial.config for trial in trials]
    yield from caught(check_resources, config, configs)
    yield from caught(check_space, configs)


def with_new_folder(config: Config) -> Config:
    """The config with a folder of its own: next to a finished sweep, a numbered one.

    Raises what `check_new` raises.
    """
    if not (config.folder / SWEEP).is_file():
        check_new(config)
        return config
    number = 2
    while (Path(config.output_dir) / f"{config.name}-{number}").exists():
        number += 1
    name = f"{config.name}-{number}"
    log.info("sweep: %s already exists and is kept; this sweep is named %s", config.folder, name)
    return config.replaced({"name": name}, "sweep")


def _announce(config: Config, trials: Sequence[Trial]) -> None:
    train = config.train
    log.info(
        "sweep %s, profile %s: %d trials of %d steps (%s, %d crops of %d px per step), "
        "results in %s",
        config.name, config.profile or "none", len(trials), train.steps, config.model.name,
        train.batch_size, train.crop_px, config.folder,
    )  # fmt: skip
    if getattr(config.model, "encoder_weights", None) == "random":
        log.info("The encoder has random weights: results are not comparable with the paper's.")
    warn_of_initial_weights([trial.config.train for trial in trials], first_comparison(config))


def _save(config: Config) -> None:
    (config.folder / checkpoint.CONFIG).write_text(config.to_yaml(), encoding="utf-8")


def _warm_cache(config: Config) -> None:
    """Decode all images once before the trials start, if they run on this machine."""
    if "RAY_ADDRESS" not in os.environ:
        data = config.data
        open_all_pixels([*open_training(data), *open_validation(data)], data)


def _run(config: Config, after_ray: contextlib.ExitStack, shared: float = 0.0) -> dict[str, Any]:
    """Run the remaining trials as children of one MLflow run, and record the results there.

    `shared` is what the estimate of a new sweep has found; the journal keeps it.
    A trial that is being killed can still open an MLflow run, so open ones are ended `after_ray`.
    """
    uri = store.prepare_store()  # first, as it may be unavailable and decoding takes long
    _warm_cache(config)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal.open(config.folder))
        (config.folder / FAILURE).unlink(missing_ok=True)  # of an earlier command
        note_command(config.folder)
        stack.enter_context(noting_failure(config.folder))
        run_id = _begin(config, journal, shared)
        queue = restore_queue(config, journal.events)
        _save(config)  # only now: a refused resume must not change the sweep's config
        record = RunLog(config.name, uri=uri, run_id=run_id, tags={"derain.kind": "sweep"})
        stack.enter_context(record)
        if run_id is None:
            journal.write("recorded", run_id=record.run_id)
            record_inputs(config, record)
        after_ray.callback(_end_children, record.run_id, uri)
        target = TrackingTarget(uri, record.run_id)
        with stopping_at_sigterm(f"{config.name}: stopped. Continue with --resume {config.name}."):
            run_trials(config, queue, journal, target, at_once=trials_at_once(config))
        result = finish_sweep(config, journal, record, time.monotonic() - start)
        _end_children(record.run_id, uri, before="SCHEDULED", after="FINISHED")
        trials = space.plan(config)
        journal.write("finished", trials=len(trials))
        _warn_of_unsent(config, trials)
    return result


def _warn_of_unsent(config: Config, trials: Sequence[Trial]) -> None:
    """Say which trials' records the store has not got; only their workers' logs have said so."""
    names = [trial.name for trial in trials if unsent_names(trial.config.folder / OUTBOX_FOLDER)]
    if names:
        log.warning(
            "sweep %s: the MLflow store has not got all records of %s (%s), which are kept in "
            "their folders. Send them with `derainctl sync %s`.",
            config.name, counted(len(names), "trial"), ", ".join(names[:3]), config.folder,
        )  # fmt: skip


def _end_children(run_id: str, uri: str, **statuses: str) -> None:
    """See `end_children`; a store that does not answer any more costs the sweep no results."""
    try:
        runs.end_children(run_id, uri, **statuses)
    except Exception as error:  # MLflow and database drivers raise types of their own
        reason = hidden(error, uri)
        log.warning("sweep: the MLflow runs of its trials keep their status: %s", reason)


def _begin(config: Config, journal: Journal, shared: float) -> str | None:
    """Write the first event of this process; returns the sweep's MLflow run, if it has one.

    Raises UsageError if the datasets are not those with which the sweep was started.
    """
    datasets = [dataset for role in ROLES for dataset in open_role(config.data, role)]
    manifests = [dataset.sha256() for dataset in datasets]
    plan = journal.first("plan")
    if plan is None:
        # The lead of TPE is part of the plan: with another one it would suggest other points.
        ahead = 2 * trials_at_once(config)
        _warn_if_all_random(config, ahead)
        _save(config)
        plan = {"name": config.name, "ahead": ahead, "manifests": manifests, "shared": shared}
        journal.write("plan", version=VERSION, **plan)
        return None
    if plan["manifests"] != manifests:
        raise UsageError(
            f"{config.folder}: the sweep was started with other datasets: the digests of their "
            f"manifests were {plan['manifests']}; "
            f"{', '.join(str(dataset.folder) for dataset in datasets)} have {manifests}."
        )
    journal.write("resumed", trials_at_once=trials_at_once(config))
    shutil.rmtree(config.folder / "ray", ignore_errors=True)
    recorded = journal.first("recorded")
    return recorded["run_id"] if recorded else None


def _warn_if_all_random(config: Config, ahead: int) -> None:
    """Warn if TPE will end before it chooses a point from results."""
    assert config.sweep is not None
    if config.sweep.search != "tpe":
        return
    from derain.tune.search.tpe import random_points  # imports Optuna, which takes a second

    random, samples = random_points(config.sweep, ahead), config.sweep.samples or 0
    if random >= samples:
        log.warning(
            "sweep: search: tpe draws its first %d points at random, which is all %d here. Set a "
            "larger sweep.samples, or a smaller sweep.concurrent.", random, samples,
        )  # fmt: skip
