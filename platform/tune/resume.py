"""Checks whether a sweep may be resumed, with which config, and whether anything is left to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.config import Config, load_config
from derain.config.flat import covers, flattened
from derain.data.prepared.roles import ROLES
from derain.errors import UsageError
from derain.pipelines.train.resume import MAY_CHANGE
from derain.training import checkpoint
from derain.tune import space
from derain.tune.journal import JOURNAL, read
from derain.tune.results import SWEEP
from derain.tune.running.queue import retryable

FREE = (
    *("output_dir", "name", "profile", "register"),
    *(f"data.{key}" for key in (*ROLES, "cache_dir", "cache_gib", "loader_processes")),
    *("data.synthetic", "sweep.space", "sweep.samples", "sweep.retries", "sweep.concurrent"),
    *("sweep.gpu_fraction", "sweep.reference"),
    *(f"train.{key}" for key in MAY_CHANGE - {"steps"}),
)
"""Keys that do not change the trials of a sweep. Datasets are compared by their manifests instead,
and the space by its trials."""


def config_to_resume(
    folder: Path, new_config: Config | None, overrides: Mapping[str, Any]
) -> Config:
    """The config with which a sweep continues: its own, or `new_config` if that only adds trials.

    `overrides` (dotted keys) are applied last. Raises UsageError if there is no sweep in the
    folder, or if a planned trial would differ.
    """
    if not (folder / JOURNAL).is_file() or not (folder / checkpoint.CONFIG).is_file():
        raise UsageError(
            f"{folder}: there is no sweep to resume (no {JOURNAL}). Give its config too, and it "
            "begins."
        )
    saved = load_config(folder / checkpoint.CONFIG)
    fixed = {"name": folder.name, "output_dir": str(folder.parent)}
    config = new_config or saved
    if new_config is not None:
        # Set when the sweep began: the folders of its data, and the CPU threads of a trial.
        tree = saved.model_dump(mode="json")
        fixed |= {f"data.{key}": tree["data"][key] for key in (*ROLES, "synthetic")}
        fixed["train.cpu_threads"] = tree["train"]["cpu_threads"]
    config = config.replaced({**fixed, **overrides}, "--set")
    _check_same(folder, saved, config)
    _check_only_grown(folder, saved, config)
    return config


def is_complete(config: Config) -> bool:
    """Whether a sweep has finished and has nothing left to do with this config.

    With another published table, its report has to be written again.
    """
    assert config.sweep is not None
    if not (config.folder / SWEEP).is_file():
        return False
    events = read(config.folder)
    finished = [event["trials"] for event in events if event["event"] == "finished"]
    grown = not finished or finished[-1] != len(space.plan(config))
    saved = load_config(config.folder / checkpoint.CONFIG).sweep
    reported = saved is not None and saved.reference == config.sweep.reference
    return not grown and reported and not retryable(config, events)


def _check_same(folder: Path, saved: Config, config: Config) -> None:
    """Raise UsageError if a key outside `FREE` has changed."""
    old, new = (
        flattened(c.model_dump(mode="json"), whole=("sweep.space",)) for c in (saved, config)
    )
    changed = sorted(
        key
        for key in {*old, *new}
        if old.get(key) != new.get(key) and not any(covers(free, key) for free in FREE)
    )
    if changed:
        raise UsageError(
            f"{folder}: cannot be resumed with another {', '.join(changed)}. The sweep has "
            f"{', '.join(f'{key}={old.get(key)}' for key in changed)}. Restore these values, or "
            "start a new sweep with --set name=..."
        )


def _check_only_grown(folder: Path, saved: Config, config: Config) -> None:
    """Raise UsageError unless every planned trial is still planned, with the same values."""
    assert saved.sweep is not None
    assert config.sweep is not None
    if saved.sweep.search in ("tpe", "pbt") and saved.sweep.space != config.sweep.space:
        raise UsageError(
            f"{folder}: the space of a sweep with search: {saved.sweep.search} cannot be changed. "
            "Start a new sweep with --set name=..."
        )
    if saved.sweep.search == "pbt" and saved.sweep.samples != config.sweep.samples:
        raise UsageError(
            f"{folder}: the size of a population cannot be changed; it has {saved.sweep.samples} "
            "members. Start a new sweep with --set name=..."
        )
    params = {trial.name: trial.params for trial in space.plan(config)}
    for trial in space.plan(saved):
        if params.get(trial.name) != trial.params:
            new = params.get(trial.name, "missing")
            raise UsageError(
                f"{folder}: a space can be extended but not changed: trial {trial.name} had "
                f"{trial.params} and would now be {new}. Start a new sweep with --set name=..."
            )
