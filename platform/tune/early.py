"""A sweep without a checkpoint, however its start has ended: the next start takes its place.

So a start that fails or is killed does not use up the sweep's name, and one command line
(`--resume NAME` with a config) serves a job that is started again and again.
"""

import logging
import shutil
from pathlib import Path

from derain.config import Config
from derain.errors import OccupiedError
from derain.pipelines.train.run_folder import COMMANDS, FAILURE, LOCKS, foreign
from derain.tracking import runs
from derain.training import checkpoint
from derain.tune.journal import JOURNAL, Event, Journal, read
from derain.tune.report.report import FOLDER as REPORT
from derain.tune.results import SWEEP

log = logging.getLogger(__name__)

OWN = (checkpoint.CONFIG, "ray", REPORT, COMMANDS, FAILURE, JOURNAL)
"""What a sweep writes beside the folders of its trials; without the last it is no sweep."""


def check_new(config: Config) -> None:
    """Check the folder of a new sweep.

    Raises OccupiedError if it holds a sweep with checkpoints, one that is running, or anything that
    is not of a sweep.
    """
    folder, name = config.folder, config.name
    if not (folder / JOURNAL).is_file():
        if folder.is_dir() and any(path.name not in LOCKS for path in folder.iterdir()):
            raise OccupiedError(
                f"{folder}: holds something that is not a sweep. Remove it, or choose another name "
                "with --set name=..."
            )
        return
    if _has_checkpoints(folder):
        raise OccupiedError(
            f"{folder}: holds an unfinished sweep. Continue it with --resume {name}, or choose "
            "another name with --set name=..."
        )
    if (found := _foreign(folder)) is not None:
        raise OccupiedError(
            f"{folder}: holds {found}, which is not of a sweep. Remove it, or choose another "
            "name with --set name=..."
        )
    with Journal.open(folder):  # refuses a sweep that is running and has no checkpoint yet
        pass


def config_to_begin(name: str, new_config: Config | None) -> Config | None:
    """The config with which `--resume NAME` begins the sweep; None if there is one to continue, or
    no config was given."""
    if new_config is None:
        return None
    config = new_config.replaced({"name": name}, "--resume")
    if (config.folder / SWEEP).is_file() or _has_checkpoints(config.folder):
        return None
    log.info("sweep: %s holds no checkpoint yet, so the sweep begins", config.folder)
    return config


def remove_early(config: Config) -> None:
    """Remove what a sweep without a checkpoint has left, and end its MLflow runs.

    Raises what `check_new` raises.
    """
    folder = config.folder
    check_new(config)
    if not (folder / JOURNAL).is_file():
        return
    with Journal.open(folder) as journal:
        recorded = journal.first("recorded")
        for name in (*_trials(journal.events), *OWN):
            _remove(folder / name)
    if recorded is not None:
        runs.end_killed(recorded["run_id"], children=True)


def _remove(path: Path) -> None:
    """Remove a file, or a folder once no process of a killed sweep writes there any more."""
    if path.is_dir():
        with checkpoint.write_lock(path):
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _foreign(folder: Path) -> str | None:
    """A name in a sweep's folder, or in that of a trial, that is the user's own."""
    trials = _trials(read(folder))
    for path in sorted(folder.iterdir()):
        if path.name in trials:
            if (found := foreign(path)) is not None:
                return f"{path.name}/{found}"
        elif path.name not in (*OWN, *LOCKS):
            return path.name
    return None


def _has_checkpoints(folder: Path) -> bool:
    return any(checkpoint.steps(trial) for trial in folder.glob("*/"))


def _trials(events: list[Event]) -> set[str]:
    """The names of the trials that were started, which are those of their folders."""
    started = (event["trials"] for event in events if event["event"] == "started")
    return {trial["name"] for trials in started for trial in trials}
