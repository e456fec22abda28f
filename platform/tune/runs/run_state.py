"""The state of one run from the files in its folder."""

import logging
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from derain.config import Config, load_config
from derain.errors import DerainError, UsageError
from derain.pipelines.train.metrics_file import METRICS_FILE, read_metrics
from derain.pipelines.train.run_folder import (
    COMMANDS,
    FAILURE,
    IDENTITY,
    PAUSED,
    RESULT,
    read_commands,
    read_json,
)
from derain.storage.locks import is_held
from derain.training import checkpoint
from derain.tune.runs.entry import Entry, State

log = logging.getLogger(__name__)

WRITTEN = (METRICS_FILE, RESULT, PAUSED, FAILURE, COMMANDS, IDENTITY, checkpoint.CONFIG)
"""Files whose times say when a run last did something."""
OF_A_RUN = (RESULT, IDENTITY, METRICS_FILE, FAILURE, COMMANDS)
"""A folder with one of these is a run's; a config alone may be the user's own."""


def is_run(folder: Path) -> bool:
    """Whether a run has begun in a folder, however far it came."""
    return any((folder / name).is_file() for name in OF_A_RUN) or bool(checkpoint.steps(folder))


def read_run(folder: Path, name: str, steps: int | None = None) -> Entry:
    """A run as its folder shows it; a file that cannot be read leaves its value unknown.

    `steps`, if it is known, is how many the run has; otherwise its config says so.
    """
    result = read_or_none(folder / RESULT)
    failure = read_or_none(folder / FAILURE)
    metrics = read_metrics(folder)
    if steps is None and (config := config_or_none(folder)) is not None:
        steps = config.train.steps
    step = max((0, *metrics, *checkpoint.steps(folder), (result or {}).get("steps", 0)))
    state = _state(folder, result, failure)
    updated = last_written(folder, WRITTEN)
    return Entry(
        name=name,
        kind="run",
        folder=folder,
        state=state,
        step=step,
        steps=steps,
        best=_best(metrics, result),
        began=began(folder),
        updated=updated,
        age_s=max(0.0, time.time() - updated),
        eta_s=_eta_s(metrics, step, steps) if state == "running" else None,
        error=failure["message"] if failure and state == "failed" else None,
    )


def config_or_none(folder: Path) -> Config | None:
    """The config of a run or a sweep; None if it is missing, or of a version that had others."""
    path = folder / checkpoint.CONFIG
    if not path.is_file():
        return None
    try:
        return load_config(path)
    except DerainError as error:
        log.warning("%s cannot be read: %s", path, error)
        return None


def read_or_none(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None without one, or for one that is damaged."""
    try:
        return read_json(path) if path.is_file() else None
    except UsageError as error:
        log.warning("%s", error)
    except OSError as error:
        log.warning("%s cannot be read: %s", path, error.strerror or error)
    return None


def began(folder: Path) -> float | None:
    """When the first command began; for older runs, when the MLflow run did."""
    for command in read_commands(folder):
        return datetime.fromisoformat(command["began"]).timestamp()
    identity = folder / IDENTITY
    return identity.stat().st_mtime if identity.is_file() else None


def last_written(folder: Path, names: tuple[str, ...]) -> float:
    """When the newest of these files, or of the checkpoints, was written."""
    paths = [folder / name for name in names]
    paths += [checkpoint.folder_of(folder, step) for step in checkpoint.steps(folder)[-1:]]
    times = [path.stat().st_mtime for path in paths if path.exists()]
    return max(times, default=folder.stat().st_mtime)


def steps_per_s(metrics: Mapping[int, Mapping[str, Any]]) -> float:
    """The latest speed of a run; 0 before the first step."""
    return metrics[max(metrics)].get("steps_per_s", 0.0) if metrics else 0.0


def _state(
    folder: Path, result: Mapping[str, Any] | None, failure: Mapping[str, Any] | None
) -> State:
    if is_held(folder / checkpoint.COMMAND_LOCK) or is_held(folder / checkpoint.LOCK):
        return "running"
    if result is not None:
        return "finished"
    return "stopped" if failure is None else "failed"


def _best(
    metrics: Mapping[int, Mapping[str, Any]], result: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The largest PSNR of all validations, that at the end included."""
    found = [
        {"metric": key, "value": value, "step": step}
        for step, values in metrics.items()
        for key, value in values.items()
        if key.startswith("psnr_")
    ]
    if result is not None:
        found += [
            {"metric": key, "value": value, "step": result["steps"]}
            for key, value in result["metrics"].items()
            if key.startswith("psnr_") and isinstance(value, int | float)
        ]
    return max(found, key=lambda each: each["value"], default=None)


def _eta_s(metrics: Mapping[int, Mapping[str, Any]], step: int, steps: int | None) -> float | None:
    speed = steps_per_s(metrics)
    return None if steps is None or not speed else max(0, steps - step) / speed
