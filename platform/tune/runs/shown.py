"""All that the files of one run or sweep say: `derainctl runs show`."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.data.prepared.roles import ROLES, names_of, open_role
from derain.pipelines.named.checkpoint_of import SWEEP
from derain.pipelines.train.run_folder import IDENTITY, RESULT, read_commands
from derain.training import checkpoint
from derain.tune.runs.checkpoints import Saved, checkpoints
from derain.tune.runs.curves import curves_of, thinned
from derain.tune.runs.entry import Entry
from derain.tune.runs.found import OUTPUT_FOLDER
from derain.tune.runs.run_state import config_or_none, read_or_none, read_run
from derain.tune.runs.sweep_state import is_sweep, read_sweep


def show(folder: Path, name: str) -> dict[str, Any]:
    """Everything about a run or a sweep; keys of `derainctl runs show --json`."""
    config = config_or_none(folder)
    common = {
        "profile": None if config is None else config.profile,
        "network": None if config is None else config.model.name,
        "config": None if config is None else str(folder / checkpoint.CONFIG),
        "commands": read_commands(folder),
        "data": [] if config is None else list(_data(config)),
    }
    if is_sweep(folder):
        entry, trials = read_sweep(folder, name)
        result = read_or_none(folder / SWEEP) or {}
        tree = {**asdict(entry), **common, "runs": [asdict(trial) for trial in trials]}
        tree |= {key: result.get(key) for key in ("test", "report", "registered", "mlflow_run_id")}
        return {**tree, "next": list(_next_of_sweep(entry))}
    entry = read_run(folder, name)
    saved = checkpoints(folder)
    result = read_or_none(folder / RESULT) or {}
    identity = read_or_none(folder / IDENTITY) or {}
    return {
        **asdict(entry),
        **common,
        "mlflow_run_id": identity.get("run_id"),
        "checkpoints": [asdict(each) for each in saved],
        **{key: result.get(key) for key in ("metrics", "input", "test", "seconds")},
        "curves": {key: thinned(curve) for key, curve in curves_of(folder).items()},
        "next": list(_next_of_run(entry, saved)),
    }


def _data(config: Config) -> Iterator[dict[str, Any]]:
    """The datasets of each role; `sha256` is None, and `error` says why, if they are not there."""
    for role in ROLES:
        try:
            datasets = open_role(config.data, role)
        except Exception as error:  # whatever it is, the run itself can be shown
            named = ", ".join(getattr(config.data, role)) or "a part of data.train"
            yield {"role": role, "name": named, "pairs": None, "sha256": None, "error": str(error)}
            continue
        for name, dataset in zip(names_of(datasets), datasets, strict=True):
            yield {
                "role": role,
                "name": name,
                "folder": str(dataset.folder),
                "pairs": len(dataset),
                "sha256": dataset.sha256(),
                "error": None,
            }


def _next_of_run(entry: Entry, saved: list[Saved]) -> Iterator[str]:
    """Commands with which the run goes on, or its result is used."""
    trial_of = entry.folder.parent if is_sweep(entry.folder.parent) else None
    if entry.state == "running":
        return
    if entry.state == "finished":
        yield f"derainctl evaluate {shlex.quote(str(entry.folder))} PREPARED"
        yield f"derainctl register {shlex.quote(str(entry.folder))} --name NAME"
    if trial_of is not None:
        if entry.state != "finished":
            yield _resume_sweep(trial_of)
        return
    command = _resume(entry.folder)
    if entry.state == "finished" and entry.steps:
        yield f"{command} --set train.steps={2 * max(entry.step, entry.steps)}"
    elif entry.state != "finished" and (saved or (entry.folder / checkpoint.CONFIG).is_file()):
        yield command
    elif entry.state != "finished":
        yield from (line["command"] for line in read_commands(entry.folder)[-1:] if line["command"])


def _next_of_sweep(entry: Entry) -> Iterator[str]:
    if entry.state in ("stopped", "failed"):
        yield _resume_sweep(entry.folder)
    if (entry.folder / SWEEP).is_file() and entry.state != "running":
        yield f"derainctl evaluate {shlex.quote(str(entry.folder))} PREPARED"


def _resume(folder: Path) -> str:
    """The command that continues a run, with its own config, wherever its folder is now."""
    config = config_or_none(folder)
    words = ["derainctl", "train", str(folder / checkpoint.CONFIG), "--resume"]
    if config is not None and config.folder.absolute() == folder.absolute():
        return shlex.join([*words, config.name])
    return shlex.join([*words, folder.name, "--set", f"output_dir={folder.parent}"])


def _resume_sweep(folder: Path) -> str:
    config = config_or_none(folder)
    name, place = folder.name, folder.parent
    if config is not None and config.folder.absolute() == folder.absolute():
        name, place = config.name, Path(config.output_dir)
    words = ["derainctl", "sweep", "--resume", name]
    if place.absolute() != OUTPUT_FOLDER.absolute():
        words += ["--set", f"output_dir={place}"]
    return shlex.join(words)
