"""A model folder as an MLflow model, with its lineage: nothing pickled, our loader beside it."""

import importlib.metadata
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from derain.tracking.store import mlflow

LOADER_MODULE = "derain.inference.predictor"
STAGED_MODULES = ("errors.py", "inference", "models")
"""All of ours that loading a model folder imports; a registered model carries a copy."""
STAGED_REQUIREMENTS = (
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "open_clip_torch",
    "jaxtyping",
)
PACKAGE = Path(__file__).parents[1]
EXAMPLE_SIDE_PX = 16
"""MLflow writes the input example as JSON numbers, twice: 16 x 16 px are 6 kB, 512 x 512 6 MB."""


def log_model(client: Any, folder: Path, run_id: str, example: np.ndarray) -> Any:
    """Write the model folder as an MLflow model of the run; return MLflow's LoggedModel."""
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
    """Build the MLflow model on disk: our loader module and the model folder, nothing pickled."""
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
        code_paths=[str(_staged_code(scratch))],
        mlflow_model=description,
        signature=ModelSignature(inputs=images, outputs=images),
        input_example=example[:1, :EXAMPLE_SIDE_PX, :EXAMPLE_SIDE_PX],
        pip_requirements=_requirements(),
    )
    return packed


def _staged_code(scratch: Path) -> Path:
    """Copy what loading needs into a folder `derain`, without __init__.py as ours has none."""
    staged = scratch / "derain"
    staged.mkdir()
    for module in STAGED_MODULES:
        source = PACKAGE / module
        if source.is_dir():
            shutil.copytree(source, staged / module, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, staged / module)
    return staged


def _requirements() -> list[str]:
    """The installed versions, without a local part such as +cu130 that no index carries."""
    versions = {name: importlib.metadata.version(name) for name in STAGED_REQUIREMENTS}
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def provenance(client: Any, run_id: str) -> dict[str, str]:
    """Where a version comes from: its run, the sweep above that, and our own code."""
    found = {
        "run_id": run_id,
        "sweep_run_id": client.get_run(run_id).data.tags.get("mlflow.parentRunId"),
        "package_version": importlib.metadata.version("derain-platform"),
        "git_commit": git_commit(Path(__file__)),
    }
    return {key: value for key, value in found.items() if value is not None}


def git_commit(file: Path) -> str | None:
    """The commit of the checkout that tracks a file, with "-dirty" where any file differs.

    None where there is none: a package that is installed inside somebody's repository, in a .venv
    there, is not tracked by it.
    """
    here = file.resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
