"""Where a sweep comes from: command, code, data, and its runs in MLflow."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from derain.config import Config
from derain.data.prepared.roles import ROLES, names_of, open_role
from derain.pipelines.train.run_folder import command_line
from derain.tracking.address import tracking_uri, without_password
from derain.tracking.packing import git_commit
from derain.training import checkpoint
from derain.tune.report.compare import Row

COMMAND, CONFIG = "Command:", "Config, resolved:"
"""How the first sentence begins, with and without a known command."""
LISTED_RUNS = 12
"""Up to so many MLflow runs are listed; those of larger sweeps are in the table of trials."""


def provenance(config: Config, result: Row) -> Iterator[str]:
    """Sentences on the command, the code, the digests of the datasets and the MLflow runs."""
    if (command := command_line()) is not None:
        yield f"{COMMAND} {command}."
    yield f"{CONFIG} {config.folder / checkpoint.CONFIG}."
    yield f"Code: derain-platform {importlib.metadata.version('derain-platform')}{_commit()}."
    for role in ROLES:
        datasets = open_role(config.data, role)
        named = zip(names_of(datasets), datasets, strict=True)
        listed = ", ".join(f"{name} (sha256 {dataset.sha256()})" for name, dataset in named)
        yield f"Data, {role}: {listed or 'none'}."
    yield f"MLflow, {without_password(tracking_uri())}: {_runs(result)}."


def _commit() -> str:
    commit = git_commit(Path(__file__))
    return f", commit {commit}" if commit else ""


def _runs(result: Row) -> str:
    trials = [trial for trial in result["trials"] if trial.get("mlflow_run_id")]
    sweep = f"run {result['mlflow_run_id']} of the sweep"
    if len(trials) > LISTED_RUNS:
        return f"{sweep}; those of the trials are in trials.csv"
    return "; ".join([sweep, *(f"{trial['name']} {trial['mlflow_run_id']}" for trial in trials)])
