"""A model folder as an MLflow model: with its lineage and a copy of our loader, nothing pickled."""

import importlib.metadata
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from derain.tracking.store import mlflow

LOADER_MODULE = "derain.inference.predictor"
LOADER_MODULES = (LOADER_MODULE, "derain.predictor")
"""The present one, and the one in models registered before the modules moved into folders."""
PACKED_MODULES = ("errors.py", "inference", "models")
"""Every module of ours that loading a model folder imports; a registered model carries a copy."""
NOT_PACKED = ("exported.py", "__pycache__")
"""Exported files need onnxruntime, model folders do not."""
PACKED_REQUIREMENTS = (
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "open_clip_torch",
    "jaxtyping",
)
PACKAGE = Path(__file__).parents[1]
EXAMPLE_SIDE_PX = 16
"""MLflow writes the input example as JSON numbers, twice: 6 kB at 16 x 16 px, 6 MB at 512 x 512."""


def log_model(client: Any, folder: Path, run_id: str, example: np.ndarray) -> Any:
    """Log the model folder as an MLflow model of the run; returns MLflow's LoggedModel."""
    entities = mlflow().entities
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            packed = _pack(Path(scratch), folder, example, logged, run_id)
            client.log_model_artifacts(logged.model_id, str(packed))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [entities.LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _pack(scratch: Path, folder: Path, example: np.ndarray, logged: Any, run_id: str) -> Path:
    """Write the MLflow model to disk: the model folder and our loader module, nothing pickled."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

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
        signature=ModelSignature(inputs=images, outputs=images),
        input_example=example[:1, :EXAMPLE_SIDE_PX, :EXAMPLE_SIDE_PX],
        pip_requirements=_requirements(),
    )
    return packed


def _copy_code(scratch: Path) -> Path:
    """Copy `PACKED_MODULES` into a folder `derain`; it has no __init__.py, as ours has none."""
    code = scratch / "derain"
    code.mkdir()
    for module in PACKED_MODULES:
        source = PACKAGE / module
        if source.is_dir():
            shutil.copytree(source, code / module, ignore=shutil.ignore_patterns(*NOT_PACKED))
        else:
            shutil.copy2(source, code / module)
    return code


def _requirements() -> list[str]:
    """The installed versions, without local parts such as +cu130, which package indexes lack."""
    versions = {name: importlib.metadata.version(name) for name in PACKED_REQUIREMENTS}
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
