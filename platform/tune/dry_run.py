"""What `derainctl sweep --dry-run` shows: trials, an estimate, and what would stop the sweep."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from derain import cluster
from derain.config import Config
from derain.errors import DerainError
from derain.pipelines.train.checks import check_before_start
from derain.pipelines.train.workers import check_resources
from derain.training.averaging import warn_of_initial_weights
from derain.tune import space
from derain.tune.early import config_to_begin
from derain.tune.estimate import estimate
from derain.tune.journal import read
from derain.tune.results import trial_rows
from derain.tune.resume import config_to_resume, is_complete
from derain.tune.running.capacity import trials_at_once, with_cpu_threads
from derain.tune.search.algorithms import first_comparison
from derain.tune.space import Trial
from derain.tune.sweep import with_new_folder


def describe(config: Config) -> dict[str, Any]:
    """What `sweep` would do, without doing it; `warnings` are the errors it would stop with."""
    warnings: list[str] = []
    with _errors_as(warnings):
        config = with_new_folder(config)
    return _describe(config, warnings, {})


def describe_resumed(
    name: str, new_config: Config | None, output_dir: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """What `resume` would do, without doing it; raises what `resume` raises at its start."""
    if (begins := config_to_begin(name, new_config)) is not None:
        return describe(begins)
    config = config_to_resume(Path(output_dir) / name, new_config, overrides)
    states = {row["name"]: row["status"] for row in trial_rows(config, read(config.folder))}
    complete = is_complete(config)
    if not complete:
        states = {name: state if state == "finished" else "begun" for name, state in states.items()}
    return _describe(config, [], states, complete=complete)


def _describe(
    config: Config, warnings: list[str], states: Mapping[str, str], *, complete: bool = False
) -> dict[str, Any]:
    """`states` are those of trials that were started; the estimate counts these in full."""
    trials = space.plan(config)
    warn_of_initial_weights([trial.config.train for trial in trials], first_comparison(config))
    remaining = 0 if complete else sum(states.get(trial.name) != "finished" for trial in trials)
    with _errors_as(warnings):
        check_before_start([trial.config for trial in trials])
    unknown = None if remaining else 0
    estimated = dict.fromkeys(("seconds", "gpu_hours", "steps", "disk_bytes"), unknown)
    if remaining:
        with cluster.connected():
            config = with_cpu_threads(config)
            # If no trial can run, nothing can be timed; the plan is shown all the same.
            with _errors_as(warnings):
                check_resources(config, [trial.config for trial in trials])
                estimated = estimate(config, trials_at_once(config), remaining)
    return {
        "name": config.name,
        "profile": config.profile,
        "trials": [_describe_trial(config, trial, states) for trial in trials],
        "estimate": estimated,
        "warnings": list(dict.fromkeys(warnings)),
        "config": config.model_dump(mode="json"),
    }


def _describe_trial(config: Config, trial: Trial, states: Mapping[str, str]) -> dict[str, Any]:
    """A trial before it runs; the values that TPE will suggest depend on results, so are null."""
    assert config.sweep is not None
    described = {"name": trial.name, "state": states.get(trial.name, "planned")}
    if config.sweep.search == "tpe":
        return {**described, "params": None, "config": None}
    return {**described, "params": trial.params, "config": trial.config.model_dump(mode="json")}


@contextlib.contextmanager
def _errors_as(warnings: list[str]) -> Iterator[None]:
    """Append the message of an expected error instead of raising it."""
    try:
        yield
    except DerainError as error:
        warnings.append(str(error))
