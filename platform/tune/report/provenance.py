"""Where a sweep comes from: command, code, data, and its runs in MLflow."""

import importlib.metadata
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from derain.config import Config
from derain.data.prepared.manifest import open_prepared
from derain.data.prepared.naming import distinct_names
from derain.pipelines.train.run_folder import RESULT, read_json
from derain.tracking.address import tracking_uri, without_password
from derain.tracking.packing import git_commit
from derain.training import checkpoint
from derain.tune.report.compare import Row

PROGRAM = "derainctl"
LISTED_RUNS = 12
"""Up to so many MLflow runs are listed; those of larger sweeps are in the table of trials."""


def provenance(config: Config, best: Row, result: Row) -> Iterator[str]:
    """Sentences on the command, the code, the digests of the datasets and the MLflow runs."""
    if Path(sys.argv[0]).name == PROGRAM:
        yield f"Command: {shlex.join([PROGRAM, *sys.argv[1:]])}."
    yield f"Config, resolved: {config.folder / checkpoint.CONFIG}."
    yield f"Code: derain-platform {importlib.metadata.version('derain-platform')}{_commit()}."
    for role, digests in (("Training", _training(config)), ("Validation", _validation(best))):
        if digests:
            listed = ", ".join(f"{name} (sha256 {digest})" for name, digest in digests.items())
            yield f"{role} data: {listed}."
    yield f"MLflow, {without_password(tracking_uri())}: {_runs(result)}."


def _commit() -> str:
    commit = git_commit(Path(__file__))
    return f", commit {commit}" if commit else ""


def _training(config: Config) -> dict[str, str]:
    folders = config.data.train
    names = distinct_names(folders)
    return {n: open_prepared(f).manifest.sha256() for n, f in zip(names, folders, strict=True)}


def _validation(trial: Row) -> dict[str, str]:
    """As the trial has recorded them when it scored their images."""
    path = Path(trial["folder"]) / RESULT
    datasets = read_json(path)["datasets"] if path.is_file() else []
    return {dataset["name"]: dataset["manifest_sha256"] for dataset in datasets}


def _runs(result: Row) -> str:
    trials = [trial for trial in result["trials"] if trial.get("mlflow_run_id")]
    sweep = f"run {result['mlflow_run_id']} of the sweep"
    if len(trials) > LISTED_RUNS:
        return f"{sweep}; those of the trials are in trials.csv"
    return "; ".join([sweep, *(f"{trial['name']} {trial['mlflow_run_id']}" for trial in trials)])
