"""A sweep: many runs under Ray Tune, ranked, reported, the best registered.

<sweep>/config.yaml      resolved
<sweep>/journal.jsonl    what was begun and what came of it (`journal.py`); from it a sweep resumes
<sweep>/<trial>/         each trial's run
<sweep>/report/          and sweep.json, what `derainctl sweep --json` prints: when it has ended
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
from derain.data.loading.loader import open_all
from derain.data.prepared.manifest import open_prepared
from derain.errors import DerainError, OccupiedError, UsageError
from derain.pipelines.train.inputs import check_data, with_data
from derain.pipelines.train.resume import claim
from derain.pipelines.train.run import TrackingTarget, read_json, record_inputs, write_json
from derain.pipelines.train.verb import check_room, wants_gpu
from derain.tracking import runs, store
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.tune import restore, space
from derain.tune.conclude import conclude
from derain.tune.estimate import estimate
from derain.tune.journal import JOURNAL, VERSION, Journal, read
from derain.tune.running import queue, supply
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
        config = _with_threads(config)
        estimate(config, _at_once(config), len(space.plan(config)))
        claim(config)
        return _run(config, afterwards)


def resume(name: str, given: Config | None, output_dir: str, overrides: Mapping[str, Any]) -> dict:
    """Continue the sweep `name` where its journal ends, with the config that it was started with.

    `given` is a config whose space may have grown. What has finished is kept, the rest goes on
    from its checkpoints. Raises UsageError for another space, or when something else has changed.
    """
    config = restore.config_to_resume(Path(output_dir) / name, given, overrides)
    folder = config.folder
    if (folder / SWEEP).is_file() and restore.is_whole(config):
        log.info("sweep: %s has ended; nothing is left to do", folder)
        return read_json(folder / SWEEP)
    _announce(config, space.plan(config))
    with contextlib.ExitStack() as afterwards, cluster.connected():
        check_room(config)
        return _run(config, afterwards)


def describe(config: Config) -> dict[str, Any]:
    """What `sweep` would do, without doing it: `derainctl sweep --dry-run --json`.

    `warnings` are the messages with which the real command would stop.
    """
    warnings: list[str] = []
    with _noted(warnings):
        config = _placed(config)
    return _described(config, warnings, {})


def describe_resumed(
    name: str, given: Config | None, output_dir: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """What `resume` would do, as `describe`; raises what `resume` raises before it begins."""
    config = restore.config_to_resume(Path(output_dir) / name, given, overrides)
    states = {row["name"]: row["status"] for row in restore.rows(config, read(config.folder))}
    whole = (config.folder / SWEEP).is_file() and restore.is_whole(config)
    if not whole:
        states = {name: state if state == "finished" else "begun" for name, state in states.items()}
    return _described(config, [], states, whole=whole)


def _described(
    config: Config, warnings: list[str], states: Mapping[str, str], *, whole: bool = False
) -> dict[str, Any]:
    """The plan; `states` are those of trials that were begun, which the estimate counts whole."""
    trials = space.plan(config)
    left = 0 if whole else sum(states.get(trial.name) != "finished" for trial in trials)
    with _noted(warnings):
        check_data(config)
    estimated = dict.fromkeys(("seconds", "gpu_hours", "steps", "disk_bytes"), None if left else 0)
    if left:
        with cluster.connected():
            config = _with_threads(config)
            # Nothing can be timed where no trial can run; the plan is worth seeing all the same.
            with _noted(warnings):
                check_room(config)
                estimated = estimate(config, _at_once(config), left)
    return {
        "name": config.name,
        "profile": config.profile,
        "trials": [_planned(config, trial, states) for trial in trials],
        "estimate": estimated,
        "warnings": list(dict.fromkeys(warnings)),
        "config": config.model_dump(mode="json"),
    }


@contextlib.contextmanager
def _noted(warnings: list[str]) -> Iterator[None]:
    """An expected error as a warning."""
    try:
        yield
    except DerainError as error:
        warnings.append(str(error))


def _planned(config: Config, trial: Trial, states: Mapping[str, str]) -> dict[str, Any]:
    """A trial before it runs; what TPE will suggest depends on results and cannot be told."""
    assert config.sweep is not None
    told = {"name": trial.name, "state": states.get(trial.name, "planned")}
    if config.sweep.search == "tpe":
        return {**told, "params": None, "config": None}
    return {**told, "params": trial.params, "config": trial.config.model_dump(mode="json")}


def _placed(config: Config) -> Config:
    """The config with a folder of its own: a sweep that has ended stays, the next gets a number."""
    if not (config.folder / SWEEP).is_file():
        if (config.folder / JOURNAL).is_file():
            raise OccupiedError(
                f"{config.folder}: holds an unfinished sweep. Continue it with "
                f"--resume {config.name}, or give another --set name=..."
            )
        if config.folder.is_dir() and any(config.folder.iterdir()):
            raise OccupiedError(
                f"{config.folder}: holds something that is not a sweep. "
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


def _save(config: Config) -> None:
    (config.folder / checkpoint.CONFIG).write_text(config.to_yaml(), encoding="utf-8")


def _slots(config: Config) -> int:
    """How many workers this cluster has room for."""
    assert config.sweep is not None
    if wants_gpu(config):
        return cluster.gpus() * int(1 / config.sweep.gpu_fraction)
    return cluster.cpus() // (config.train.cpu_threads or 1)


def _at_once(config: Config) -> int:
    """How many trials at once."""
    assert config.sweep is not None
    return config.sweep.concurrent or max(1, _slots(config) // config.train.max_workers)


def _with_threads(config: Config) -> Config:
    """The threads of a trial are fixed when a sweep begins: another number adds up otherwise."""
    threads = config.train.cpu_threads or max(
        1, cluster.cpus() // (_at_once(config) * config.train.max_workers)
    )
    return config.replaced({"train.cpu_threads": threads}, "sweep")


def _warm_cache(config: Config) -> None:
    """Decode once before the trials start, where they share this machine's disk."""
    if "RAY_ADDRESS" not in os.environ:
        open_all([open_prepared(p) for p in (*config.data.train, *config.data.eval)], config.data)


def _run(config: Config, afterwards: contextlib.ExitStack) -> dict[str, Any]:
    """Run what is left below one MLflow run of the sweep, and record there what came of it.

    A trial that is being killed can still open a run, so those left open are ended `afterwards`.
    """
    _warm_cache(config)
    uri = store.prepare_store()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal.open(config.folder))
        begun = _begin(config, journal)
        left = queue.restored(config, journal.events)
        _save(config)  # a resumed sweep has another one from here on, not where it was refused
        record = RunLog(config.name, uri=uri, run_id=begun, tags={"derain.kind": "sweep"})
        stack.enter_context(record)
        if begun is None:
            journal.write("recorded", run_id=record.run_id)
            record_inputs(config, record)
        afterwards.callback(runs.end_children, record.run_id, uri)
        supply.train(
            config, left, journal, TrackingTarget(uri, record.run_id), at_once=_at_once(config)
        )
        result = conclude(config, journal, record)
        runs.end_children(record.run_id, uri, found="SCHEDULED", ended="FINISHED")
        result["seconds"] = time.monotonic() - began
        write_json(config.folder / SWEEP, result)
        journal.write("finished", trials=len(space.plan(config)))
    return result


def _warn_if_all_random(config: Config, ahead: int) -> None:
    """Say so where TPE ends before it has chosen a point."""
    assert config.sweep is not None
    if config.sweep.search == "tpe":
        from derain.tune.search.tpe import drawn_first

        random, samples = drawn_first(config.sweep, ahead), config.sweep.samples or 0
        if random >= samples:
            log.warning(
                "sweep: search: tpe draws its first %d points at random, here all %d. Give more "
                "sweep.samples, or fewer at once with sweep.concurrent.", random, samples,
            )  # fmt: skip


def _begin(config: Config, journal: Journal) -> str | None:
    """Write the first line of this process; returns the MLflow run that the sweep has already.

    Raises UsageError where the datasets are not those that the sweep began with.
    """
    folders = (*config.data.train, *config.data.eval)
    manifests = [open_prepared(folder).manifest.sha256() for folder in folders]
    planned = journal.only("plan")
    if planned is None:
        # The lead of TPE belongs to the plan: with another one it would suggest other points.
        ahead = 2 * _at_once(config)
        _warn_if_all_random(config, ahead)
        _save(config)
        journal.write("plan", version=VERSION, name=config.name, ahead=ahead, manifests=manifests)
        return None
    if planned["manifests"] != manifests:
        raise UsageError(
            f"{config.folder}: the sweep began with other datasets: their manifests were "
            f"{planned['manifests']}, {', '.join(folders)} have {manifests}."
        )
    journal.write("resumed", trials_at_once=_at_once(config))
    shutil.rmtree(config.folder / "ray", ignore_errors=True)
    recorded = journal.only("recorded")
    return recorded["run_id"] if recorded else None
