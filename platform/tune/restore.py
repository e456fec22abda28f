"""A sweep that was left: its config, whether it may go on with another one, what it has so far."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derain.config import Config, load_config
from derain.config.flat import covers, flattened
from derain.errors import UsageError
from derain.pipelines.train.resume import MAY_CHANGE
from derain.pipelines.train.run import IDENTITY, read_json
from derain.training import checkpoint
from derain.tune import space
from derain.tune.journal import JOURNAL, Event, read
from derain.tune.running.queue import repeatable

FREE = (
    *("output_dir", "name", "profile", "register"),
    *(f"data.{key}" for key in ("train", "eval", "cache_dir", "cache_gib", "loader_processes")),
    *("data.synthetic", "sweep.space", "sweep.samples", "sweep.retries", "sweep.concurrent"),
    *("sweep.gpu_fraction", "sweep.reference"),
    *(f"train.{key}" for key in MAY_CHANGE - {"steps"}),
)
"""Keys that do not change what a trial of a sweep is; datasets are compared by their manifests."""


def config_to_resume(folder: Path, given: Config | None, overrides: Mapping[str, Any]) -> Config:
    """The config that a sweep goes on with: its own, or the given one where that only adds trials.

    `overrides` (dotted keys) come last. Raises UsageError where there is no sweep in the folder, or
    where a trial that was planned would be another one now.
    """
    if not (folder / JOURNAL).is_file() or not (folder / checkpoint.CONFIG).is_file():
        raise UsageError(f"{folder}: there is no sweep to resume (no {JOURNAL}).")
    saved = load_config(folder / checkpoint.CONFIG)
    here = {"name": folder.name, "output_dir": str(folder.parent)}
    config = given or saved
    if given is not None:
        # Found when the sweep began: where its data lies, and the threads of a trial.
        tree = saved.model_dump(mode="json")
        here |= {f"data.{key}": tree["data"][key] for key in ("train", "eval", "synthetic")}
        here["train.cpu_threads"] = tree["train"]["cpu_threads"]
    config = config.replaced({**here, **overrides}, "--set")
    _check_same(folder, saved, config)
    _check_only_grown(folder, saved, config)
    return config


def is_whole(config: Config) -> bool:
    """Whether a sweep that has ended has nothing left to do with this config.

    With another published table it has: its report is written again.
    """
    assert config.sweep is not None
    events = read(config.folder)
    ended = [event["trials"] for event in events if event["event"] == "finished"]
    grown = not ended or ended[-1] != len(space.plan(config))
    saved = load_config(config.folder / checkpoint.CONFIG).sweep
    reported = saved is not None and saved.reference == config.sweep.reference
    return not grown and reported and not repeatable(config, events)


def rows(config: Config, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Every trial that was started, in the plan's order, with the last that is known of it."""
    started = {
        trial["name"]: trial for e in events if e["event"] == "started" for trial in e["trials"]
    }
    outcomes = {
        outcome["trial"]: outcome
        for event in events
        if event["event"] == "ended"
        for outcome in event["outcomes"]
    }
    return [
        _row(config, trial, started[trial.name], outcomes.get(trial.name))
        for trial in space.plan(config)
        if trial.name in started
    ]


def _row(
    config: Config, trial: space.Trial, started: Event, outcome: Event | None
) -> dict[str, Any]:
    """A trial as `derainctl sweep --json` lists it; a parameter that it has not is null."""
    assert config.sweep is not None
    folder = config.folder / trial.name
    row: dict[str, Any] = {
        "name": trial.name,
        "point": trial.point,
        "params": {key: started["params"].get(key) for key in config.sweep.space},
        "seed": trial.config.seed,
        "folder": str(folder),
    }
    nothing = {"metrics": None, "input": None, "seconds": None, "mlflow_run_id": None}
    if outcome is None or outcome["status"] == "failed":
        error = outcome["error"] if outcome else "did not end"
        return {**row, **nothing, "status": "failed", "error": error}
    if outcome["status"] == "paused":
        known = {"metrics": outcome["metrics"], "mlflow_run_id": _run_id(folder)}
        return {**row, **nothing, **known, "status": "stopped", "steps": outcome["step"]}
    result = outcome["result"]
    kept = ("metrics", "input", "seconds", "mlflow_run_id", "loss", "weights_sha256", "steps")
    saved = folder / "checkpoints" / Path(result["checkpoint"]).name
    found = {"status": "finished", "costs": outcome["costs"], "checkpoint": str(saved)}
    return {**row, **found, **{key: result[key] for key in kept}}


def _run_id(folder: Path) -> str | None:
    note = folder / IDENTITY
    return read_json(note)["run_id"] if note.is_file() else None


def _check_same(folder: Path, saved: Config, config: Config) -> None:
    then, now = (
        flattened(each.model_dump(mode="json"), whole=("sweep.space",)) for each in (saved, config)
    )
    changed = sorted(
        key
        for key in {*then, *now}
        if then.get(key) != now.get(key) and not any(covers(free, key) for free in FREE)
    )
    if changed:
        raise UsageError(
            f"{folder}: cannot resume with another {', '.join(changed)}. The sweep has "
            f"{', '.join(f'{key}={then.get(key)}' for key in changed)}."
        )


def _check_only_grown(folder: Path, saved: Config, config: Config) -> None:
    """All trials that were planned are planned still, with the same values."""
    assert saved.sweep is not None
    assert config.sweep is not None
    planned = {trial.name: trial.params for trial in space.plan(config)}
    if saved.sweep.search in ("tpe", "pbt") and saved.sweep.space != config.sweep.space:
        raise UsageError(f"{folder}: the space of search: {saved.sweep.search} cannot change.")
    if saved.sweep.search == "pbt" and saved.sweep.samples != config.sweep.samples:
        raise UsageError(f"{folder}: a population cannot grow; it has {saved.sweep.samples}.")
    for trial in space.plan(saved):
        if planned.get(trial.name) != trial.params:
            found = planned.get(trial.name, "no such trial")
            raise UsageError(
                f"{folder}: the space can be extended, not changed: {trial.name} was "
                f"{trial.params}, it would be {found}. Give another --set name=... for a new sweep."
            )
