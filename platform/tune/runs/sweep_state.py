"""The state of a sweep from its journal and the folders of its trials."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.errors import DerainError
from derain.pipelines.named.checkpoint_of import SWEEP
from derain.pipelines.train.metrics_file import read_metrics
from derain.pipelines.train.run_folder import COMMANDS, FAILURE
from derain.training import checkpoint
from derain.tune import space
from derain.tune.journal import JOURNAL, Event, is_running, read, started_and_ended
from derain.tune.runs.entry import Entry, State
from derain.tune.runs.run_state import (
    began,
    config_or_none,
    last_written,
    read_or_none,
    read_run,
    steps_per_s,
)

STATES: Mapping[str, State] = {"finished": "finished", "failed": "failed", "paused": "stopped"}
"""What the journal says of a trial, in the words of the list."""


def is_sweep(folder: Path) -> bool:
    """Whether a sweep has begun in a folder."""
    return (folder / JOURNAL).is_file()


def read_sweep(folder: Path, name: str) -> tuple[Entry, list[Entry]]:
    """A sweep as its folder shows it, and its trials in the order of their start.

    Raises UsageError for a damaged journal.
    """
    events = read(folder)
    config = config_or_none(folder)
    trials = _trials(folder, name, events, config)
    planned = max(_planned(config), len(trials))
    states: Counter[str] = Counter(trial.state for trial in trials)
    failure = read_or_none(folder / FAILURE)
    state = _state(folder, failure)
    own = last_written(folder, (JOURNAL, SWEEP, COMMANDS, FAILURE, checkpoint.CONFIG))
    updated = max([own, *(trial.updated for trial in trials)])
    entry = Entry(
        name=name,
        kind="sweep",
        folder=folder,
        state=state,
        step=sum(trial.step for trial in trials),
        steps=None if config is None else planned * config.train.steps,
        best=_best(folder, trials),
        trials={"planned": planned, **states},
        began=began(folder) or min((t.began for t in trials if t.began), default=None),
        updated=updated,
        age_s=max(0.0, time.time() - updated),
        eta_s=_eta_s(config, planned, trials) if state == "running" else None,
        error=failure["message"] if failure and state == "failed" else None,
    )
    return entry, trials


def _trials(folder: Path, name: str, events: Sequence[Event], config: Config | None) -> list[Entry]:
    """The trials that have begun; how long they are is in the journal and the sweep's config, since
    to parse the config of each would take most of the time."""
    started, outcomes = started_and_ended(events)
    steps = None if config is None else config.train.steps
    return [
        _trial(
            folder / trial,
            f"{name}/{trial}",
            outcomes.get(trial),
            event.get("params", {}).get("train.steps", steps),
        )
        for trial, event in started.items()
        if (folder / trial).is_dir() or trial in outcomes
    ]


def _trial(folder: Path, name: str, outcome: Mapping[str, Any] | None, steps: int | None) -> Entry:
    """A trial: its run, and what the journal says of its end."""
    if not folder.is_dir():
        now = time.time()
        run = Entry(
            name=name, kind="run", folder=folder, state="failed", step=0, steps=None, best=None,
            began=None, updated=now, age_s=0.0,
        )  # fmt: skip
    else:
        run = read_run(folder, name, steps)
    if outcome is None or run.state == "running":
        return run
    state = STATES.get(outcome["status"], "failed")
    return replace(run, state=state, error=outcome.get("error") or None)


def _planned(config: Config | None) -> int:
    """The number of trials; 0 if nobody can tell."""
    if config is None or config.sweep is None:
        return 0
    try:
        return len(space.plan(config))
    except DerainError:  # a class of the user's that is not importable here
        return 0


def _state(folder: Path, failure: Mapping[str, Any] | None) -> State:
    if is_running(folder):
        return "running"
    if failure is not None:
        return "failed"
    return "finished" if (folder / SWEEP).is_file() else "stopped"


def _best(folder: Path, trials: Sequence[Entry]) -> dict[str, Any] | None:
    """The largest PSNR of the trial that a finished sweep has chosen; before, of the best one."""
    chosen = (read_or_none(folder / SWEEP) or {}).get("best")
    measured = [trial for trial in trials if trial.best is not None and trial.state != "failed"]
    measured = [trial for trial in measured if trial.folder.name == chosen] or measured
    best = max(measured, key=lambda trial: (trial.best or {})["value"], default=None)
    return None if best is None else {**(best.best or {}), "trial": best.folder.name}


def _eta_s(config: Config | None, planned: int, trials: Sequence[Entry]) -> float | None:
    """The steps that are left at the speed of the trials that run; None for ASHA, which stops most
    of its trials nobody knows where."""
    if config is None or config.sweep is None or config.sweep.search == "asha":
        return None
    running = [trial for trial in trials if trial.state == "running"]
    speed = sum(steps_per_s(read_metrics(trial.folder)) for trial in running)
    open_trials = planned - sum(trial.state in ("finished", "failed") for trial in trials)
    done = sum(trial.step for trial in trials if trial.state not in ("finished", "failed"))
    return max(0, open_trials * config.train.steps - done) / speed if speed else None
