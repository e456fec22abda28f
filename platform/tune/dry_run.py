"""What `--dry-run` of `train` and `sweep` shows: the plan, an estimate, and all that would stop it.

The checks are those that the commands make themselves; they raise the first problem, here all of
them are listed.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from derain import cluster
from derain.config import Config
from derain.errors import DerainError
from derain.pipelines.train import verb
from derain.pipelines.train.run_folder import has_begun
from derain.training import checkpoint
from derain.training.averaging import warn_of_initial_weights
from derain.training.factory import describe as describe_network
from derain.tune import space
from derain.tune.early import config_to_begin
from derain.tune.estimate import UNKNOWN, estimate, estimate_run
from derain.tune.journal import read
from derain.tune.results import trial_rows
from derain.tune.resume import config_to_resume, is_complete
from derain.tune.running.capacity import trials_at_once, with_cpu_threads
from derain.tune.search.algorithms import first_comparison
from derain.tune.space import Trial
from derain.tune.sweep import problems_before_ray, problems_on_cluster, with_new_folder


def describe_run(
    config: Config, *, resumed: bool = False, price_per_hour: float | None = None
) -> dict[str, Any]:
    """The output of `derainctl train --dry-run --json`; `warnings` is all that would stop the run.

    `resumed`: whether the run was named by --resume; if it has nothing to resume, it begins.
    """
    warnings: list[str] = []
    continues = resumed and has_begun(config.folder)
    problems = verb.problems_to_resume if continues else verb.problems_before_ray
    _add(warnings, problems(config))
    done = max(checkpoint.steps(config.folder), default=0) if continues else 0
    warn_of_initial_weights([config.train])
    described: dict[str, Any] = {"network": None, "config": config.model_dump(mode="json")}
    with _errors_as(warnings):
        described = describe_network(config)
    with cluster.connected():
        if not _add(warnings, verb.problems_on_cluster(config)):
            estimated = _estimated(warnings, lambda: estimate_run(config, done, price_per_hour))
        else:
            estimated = UNKNOWN
    return {
        "name": config.name,
        "profile": config.profile,
        "folder": str(config.folder),
        "resumes_from_step": done,
        "register": config.register_.name if config.register_ else None,
        **described,
        "estimate": estimated,
        "warnings": list(dict.fromkeys(warnings)),
    }


def describe(config: Config, price_per_hour: float | None = None) -> dict[str, Any]:
    """What `sweep` would do, without doing it; `warnings` are the errors it would stop with."""
    warnings: list[str] = []
    with _errors_as(warnings):
        config = with_new_folder(config)
    return _describe(config, warnings, {}, price_per_hour=price_per_hour)


def describe_resumed(
    name: str,
    new_config: Config | None,
    output_dir: str,
    overrides: Mapping[str, Any],
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """What `resume` would do, without doing it; raises what `resume` raises at its start."""
    if (begins := config_to_begin(name, new_config)) is not None:
        return describe(begins, price_per_hour)
    config = config_to_resume(Path(output_dir) / name, new_config, overrides)
    states = {row["name"]: row["status"] for row in trial_rows(config, read(config.folder))}
    complete = is_complete(config)
    if not complete:
        states = {name: state if state == "finished" else "begun" for name, state in states.items()}
    return _describe(config, [], states, complete=complete, price_per_hour=price_per_hour)


def _describe(
    config: Config,
    warnings: list[str],
    states: Mapping[str, str],
    *,
    complete: bool = False,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """`states` are those of trials that were started; the estimate counts these in full."""
    trials = space.plan(config)
    warn_of_initial_weights([trial.config.train for trial in trials], first_comparison(config))
    left = [trial for trial in trials if not complete and states.get(trial.name) != "finished"]
    _add(warnings, problems_before_ray(config, trials))
    estimated = dict(UNKNOWN) if left else dict.fromkeys(UNKNOWN, 0)
    if left:
        with cluster.connected():
            config = with_cpu_threads(config)
            # If no trial can run, nothing can be timed; the plan is shown all the same.
            if not _add(warnings, problems_on_cluster(config, left)):
                at_once = trials_at_once(config)
                estimated = _estimated(
                    warnings, lambda: estimate(config, at_once, len(left), price_per_hour)
                )
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


def _estimated(warnings: list[str], make: Any) -> dict[str, Any]:
    """The estimate; its own failure is only news if nothing else would stop the command."""
    failures: list[str] = []
    with _errors_as(failures):
        return make()
    warnings += [] if warnings else failures
    return dict(UNKNOWN)


def _add(warnings: list[str], problems: Iterable[DerainError]) -> bool:
    """Append the messages of problems, of which each line is one; returns whether there are any."""
    found = [line for problem in problems for line in str(problem).splitlines()]
    warnings += found
    return bool(found)


@contextlib.contextmanager
def _errors_as(warnings: list[str]) -> Iterator[None]:
    """Append the message of an expected error instead of raising it."""
    try:
        yield
    except DerainError as error:
        warnings.append(str(error))
