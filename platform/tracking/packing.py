"""A model folder as an MLflow model: with its lineage and a copy of our loader, nothing pickled."""

import functools
import importlib.metadata
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from derain.config.flat import flattened
from derain.errors import StorageError
from derain.inference.predictor import NETWORK_FILE, load_model_folder
from derain.tracking.names import accepted, param_value
from derain.tracking.store import mlflow

LOADER_MODULE = "derain.inference.predictor"
LOADER_MODULES = (LOADER_MODULE, "derain.predictor")
"""The present one, and the one in models registered before the modules moved into folders."""
PACKED_MODULES = ("errors.py", "inference", "models", "plugins")
"""Every module of ours that loading a model folder imports; a registered model carries a copy."""
NOT_PACKED = ("exported.py", "identity.py", "options.py", "protocols.py", "__pycache__")
"""Exported files need onnxruntime, model folders do not; of `plugins` they need `resolve`."""
BASE_REQUIREMENTS = ("torch", "numpy", "safetensors", "jaxtyping")
"""What the packed code imports for every network; `requirements` adds the packages that a network
is built of, such as torchvision or open_clip for its encoder."""
OWN_PACKAGE = "derain"
PACKAGE = Path(__file__).parents[1]
_packages_distributions = functools.cache(importlib.metadata.packages_distributions)
"""It reads the files of every installed package, most of a registration's time."""
TAG_LIMIT = 8000
"""MLflow's limit of the characters of a tag of a LoggedModel; a version's may have 100,000."""
VERSIONS_TAG = "mlflow.modelVersions"
INPUT = "NHWC, RGB, integers in 0..255 (JSON: `inputs`, a list of images)"
EXAMPLE_SIDE_PX = 16
"""MLflow writes the input example as JSON numbers, twice: 6 kB at 16 x 16 px, 6 MB at 512 x 512."""


def log_model(
    client: Any,
    folder: Path,
    run_id: str,
    example: np.ndarray,
    *,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    card: str,
) -> Any:
    """Log the model folder as an MLflow model of the run; returns MLflow's LoggedModel.

    It has the tags and the metrics, the network's options as params, and its name as type, so that
    MLflow's search finds it. Raises StorageError if the store of files refuses it.
    """
    entities = mlflow().entities
    run = client.get_run(run_id)
    described = json.loads((folder / NETWORK_FILE).read_text(encoding="utf-8"))
    logged = client.create_logged_model(
        run.info.experiment_id,
        name="model",
        source_run_id=run_id,
        tags={accepted(key): value[:TAG_LIMIT] for key, value in tags.items()},
        params=_params(described),
        model_type=described["name"],
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            packed = _pack(Path(scratch), folder, example, logged, run_id)
            if card:
                (packed / "README.md").write_text(card, encoding="utf-8")
            _store(client, logged, packed)
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [entities.LoggedModelOutput(logged.model_id, step=0)])
    _log_metrics(client, run_id, logged.model_id, metrics)
    return logged


def link_version(client: Any, logged: Any, name: str, version: int) -> None:
    """Note a version of a registered model at the LoggedModel, where MLflow's page looks for it."""
    versions = json.dumps([{"name": name, "version": int(version)}])
    client.set_logged_model_tags(logged.model_id, {VERSIONS_TAG: versions})


def _params(described: Mapping[str, Any]) -> dict[str, str]:
    options = flattened(described["options"])
    return {accepted(key): param_value(value) for key, value in options.items()}


def _store(client: Any, logged: Any, packed: Path) -> None:
    try:
        client.log_model_artifacts(logged.model_id, str(packed))
    except mlflow().exceptions.MlflowException:
        raise
    except Exception as error:  # of the artifact store's own library, such as boto3's
        raise StorageError(
            f"The model cannot be stored in {logged.artifact_location}: {type(error).__name__}: "
            f"{error}. This is where the MLflow store keeps its files; check that this machine can "
            "write there, and register again."
        ) from error


def _log_metrics(client: Any, run_id: str, model_id: str, metrics: Mapping[str, float]) -> None:
    """Log metrics of the model; those that the run has get no second point in its history."""
    points = []
    for key, value in metrics.items():
        history = client.get_metric_history(run_id, key)
        now = (int(time.time() * 1000), 0)
        at, step = (history[-1].timestamp, history[-1].step) if history else now
        points.append(
            mlflow().entities.Metric(key, float(value), at, step, model_id=model_id, run_id=run_id)
        )
    client.log_batch(run_id, metrics=points)


def _pack(scratch: Path, folder: Path, example: np.ndarray, logged: Any, run_id: str) -> Path:
    """Write the MLflow model to disk: the model folder and our loader module, nothing pickled."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Not of the input: MLflow's server casts JSON to it without a check, and levels in [0, 1] would
    # become black images. The model itself checks them.
    images = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    description = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=run_id,
    )
    packed = scratch / "packed"
    mlflow().pyfunc.save_model(
        str(packed),
        loader_module=LOADER_MODULE,
        data_path=str(folder),
        code_paths=[str(_copy_code(scratch))],
        mlflow_model=description,
        signature=ModelSignature(outputs=images),
        metadata={"input": INPUT},
        input_example=example[:1, :EXAMPLE_SIDE_PX, :EXAMPLE_SIDE_PX],
        pip_requirements=requirements(load_model_folder(folder, trust=True)),
    )
    return packed


def _copy_code(scratch: Path) -> Path:
    """Copy `PACKED_MODULES` into a folder `derain`, without an __init__.py: where this package is
    installed too, `derain.py` puts the folder before its own rooms."""
    code = scratch / "derain"
    code.mkdir()
    for module in PACKED_MODULES:
        source = PACKAGE / module
        if source.is_dir():
            shutil.copytree(source, code / module, ignore=shutil.ignore_patterns(*NOT_PACKED))
        else:
            shutil.copy2(source, code / module)
    return code


def requirements(network: nn.Module) -> list[str]:
    """The packages that a network needs, in their installed versions.

    Without local parts such as +cu130, which package indexes lack. A user-defined class that is in
    no package is not among them.
    """
    names = {type(module).__module__.partition(".")[0] for module in network.modules()}
    others = names - {OWN_PACKAGE, *BASE_REQUIREMENTS}
    distributions = _packages_distributions() if others else {}
    built_of = {distributions[name][0] for name in others if name in distributions}
    needed = [*BASE_REQUIREMENTS, *sorted(built_of - set(BASE_REQUIREMENTS))]
    versions = {name: importlib.metadata.version(name) for name in needed}
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def provenance(run: Any) -> dict[str, str]:
    """Where a model version of an MLflow run comes from: run, sweep, package version, commit."""
    origin = {
        "run_id": run.info.run_id,
        "sweep_run_id": run.data.tags.get("mlflow.parentRunId"),
        "package_version": importlib.metadata.version("derain-platform"),
        "git_commit": git_commit(Path(__file__)),
    }
    return {key: value for key, value in origin.items() if value is not None}


def git_commit(file: Path) -> str | None:
    """The commit of the checkout that tracks a file, with "-dirty" if any file was modified.

    None if no checkout tracks it, such as a package installed into a .venv inside a repository.
    """
    file = file.resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
