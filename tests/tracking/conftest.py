"""A real sqlite store that eight processes created at once, and a model to register in it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from derain import models
from derain.inference.predictor import save_model_folder
from derain.tracking import registry
from derain.tracking.runs import RunLog
from tests.tracking.samples import EVALUATION, NETWORK, POINTS, PROCESSES, TAGS

Register = Callable[..., registry.Registered]

CONCURRENT_WRITERS = """
import json, os, sys
import mlflow  # once, before the fork: it takes seconds
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store

def write(uri, points):
    prepare_store(uri)
    with RunLog("writer", uri=uri) as run:
        for step in range(points):
            run.metrics(step, {"loss": 1.0 / (step + 1), "psnr_y": float(step)})
        run.text("note.txt", "written")
    print(json.dumps({"run_id": run.run_id}), flush=True)

uri, points, folders = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
children = []
for folder in folders:
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
        write(uri, points)
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.fixture(autouse=True)
def _no_global_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that asks MLflow's global state for the store, instead of taking `uri`, fails."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-scheme://global")


@pytest.fixture(scope="session")
def writers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The output of 8 processes, each in its own folder, that wrote to a new store at once."""
    root = tmp_path_factory.mktemp("with a space")
    uri = f"sqlite:///{root}/store/mlflow.db"
    folders = [root / f"worker-{number}" for number in range(PROCESSES)]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", CONCURRENT_WRITERS, uri, str(POINTS), *map(str, folders)]
    ended = subprocess.run(command, check=False)
    outputs = [(folder / "stdout", folder / "stderr") for folder in folders]
    read = [(out.read_text(), errors.read_text()) for out, errors in outputs]
    assert ended.returncode == 0, read
    return {"uri": uri, "root": root, "folders": folders, "outputs": read}


@pytest.fixture(scope="session")
def uri(writers: dict[str, Any]) -> str:
    return writers["uri"]


@pytest.fixture(scope="session")
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = models.build("fclip_unet", **NETWORK)
    folder = tmp_path_factory.mktemp("model") / "folder"
    return save_model_folder(network, folder, "fclip_unet", NETWORK)


@pytest.fixture(scope="session")
def run_id(uri: str) -> str:
    """The MLflow run of a trial of a sweep."""
    with (
        RunLog("sweep", uri=uri) as sweep,
        RunLog("trial", uri=uri, parent_run_id=sweep.run_id) as trial,
    ):
        pass
    return trial.run_id


@pytest.fixture(scope="session")
def register(uri: str, model_folder: Path, run_id: str) -> Register:
    """Registers `model_folder` with the given score."""

    def call(name: str, psnr_y: float, **changes: Any) -> registry.Registered:
        given: dict[str, Any] = {
            "run_id": run_id,
            "scores": {"psnr_y": psnr_y, "ssim_y": 0.9},
            "evaluation_sha256": EVALUATION,
            "tags": TAGS,
            "example": np.zeros((4, 200, 300, 3), np.uint8),
            "uri": uri,
        }
        return registry.register(model_folder, name, **(given | changes))

    return call
