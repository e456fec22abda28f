"""Folders of runs and sweeps as `train` and `sweep` leave them, made without Ray and MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.pipelines.train.metrics_file import append_metrics
from derain.pipelines.train.run_folder import RESULT, note_command, write_json
from derain.training import checkpoint
from derain.tune.journal import Journal
from tests import tiny

SAVED = (1, 2, 3, 4)
"""The steps of the checkpoints that a run here has kept."""


def config_of(place: Path, name: str = "run", **train: object) -> Config:
    config = tiny.config(place, **{"steps": 4, "ema_decay": None, **train})
    return config.replaced({"name": name, "loss.perceptual": "none"}, "test")


def run(place: Path, name: str = "run", *, psnr: Mapping[int, float] | None = None) -> Path:
    """A run that was stopped after four steps, with metrics of each and a checkpoint after each."""
    config = config_of(place, name)
    tiny.run(config)
    (config.folder / checkpoint.CONFIG).write_text(config.to_yaml())
    note_command(config.folder)
    for step in SAVED:
        metrics = {"loss": 1 / step, "train_psnr": 20.0 + step, "steps_per_s": 2.0}
        metrics |= {"psnr_y": psnr[step], "ssim_y": 0.5} if psnr and step in psnr else {}
        append_metrics(config.folder, step, metrics)
    return config.folder


def finish(folder: Path, *, chosen: int = 4, psnr: float = 30.0) -> dict[str, Any]:
    """The result of a run; returns it."""
    saved = checkpoint.folder_of(folder, chosen)
    measured = {"psnr_y": psnr, "ssim_y": 0.9}
    result = {
        "run": folder.name, "steps": 4, "checkpoint": str(saved), "metrics": measured,
        "input": {"psnr_y": 25.0, "ssim_y": 0.8}, "protocol": "rain13k v1", "test": None,
        "datasets": [{"manifest_sha256": "abc"}], "seconds": 3.0, "weights_sha256": "0",
        "mlflow_run_id": "1", "loss": {"first": 1.0, "last": 0.25},
    }  # fmt: skip
    write_json(folder / RESULT, result)
    return result


def sweep(place: Path, *trials: str, planned: Mapping[str, float]) -> Path:
    """A sweep of learning rates whose named trials were started; each is a run with checkpoints."""
    space = {"train.lr": {"grid": dict(planned)}}
    config = config_of(place, "search").replaced({"sweep": {"space": space}}, "test")
    config.folder.mkdir(parents=True)
    (config.folder / checkpoint.CONFIG).write_text(config.to_yaml())
    with Journal.open(config.folder) as journal:
        journal.write("plan", version=1, name="search", ahead=2, manifests=[])
        for name in trials:
            run(place, f"search/{name}", psnr={4: 28.0})
            started = {"name": name, "point": name, "params": {}}
            journal.write("started", key=f"{name}@4", trials=[started], until=4, beside=[])
    return config.folder


def end(folder: Path, trial: str, status: str, error: str = "") -> None:
    """Journal how a trial has ended."""
    outcome = {"trial": trial, "status": status, "step": 4, "metrics": None, "error": error}
    with Journal.open(folder) as journal:
        journal.write("ended", key=f"{trial}@4", outcomes=[outcome])
