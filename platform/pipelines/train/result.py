"""The end of a run: its checkpoint is scored on the validation images, once on the test images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.data.images.decode import encode_png
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.roles import names_of, open_role, open_validation
from derain.evaluation.gallery import gallery
from derain.evaluation.protocols import identity
from derain.evaluation.scoring import DatasetScores, overall, score_dataset
from derain.inference.predictor import Predictor
from derain.pipelines.train.run_folder import GALLERY
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.training.loop import Outcome
from derain.training.process.device import pick_device

GALLERY_IMAGES = 4
TEST = "test_"
"""Before the names of metrics on test images in MLflow; those without it are of validation."""


class CheckpointScores:
    """The metrics of one checkpoint of our own on the datasets of a role."""

    def __init__(self, config: Config, folder: str | Path) -> None:
        network = restore_network(checkpoint.load(folder), trust=True)  # trained by this very run
        self._config = config
        self._predictor = Predictor(network, pick_device(config.train))

    def of(self, role: str) -> list[DatasetScores]:
        """The scores of each dataset of a role, "validation" or "test"."""
        data, protocol = self._config.data, self._config.eval.protocol
        datasets = open_role(data, role)
        pixels = open_all_pixels(datasets, data, at_once=True)
        return [
            score_dataset(self._predictor.levels, dataset, pairs, protocol, name=name)
            for dataset, pairs, name in zip(datasets, pixels, names_of(datasets), strict=True)
        ]

    def record_gallery(self, record: RunLog) -> None:
        """Write a few validation images, derained, into the run's folder and its MLflow run."""
        data = self._config.data
        pixels = open_all_pixels(open_validation(data)[:1], data, at_once=True)
        grid = gallery([self._predictor.derain], pixels[0], GALLERY_IMAGES)
        (self._config.folder / GALLERY).write_bytes(encode_png(grid))
        record.image(GALLERY, grid)


def score_test(config: Config, folder: str | Path) -> dict[str, Any] | None:
    """The metrics of a checkpoint on the test images; None if the config names none.

    Keys: `protocol` (its identity), `metrics`, `input` (means over the datasets), `datasets`,
    `chosen_on_test`.
    """
    if not config.data.test:
        return None
    scores = CheckpointScores(config, folder).of("test")
    metrics, rainy = overall(scores)
    return {
        "protocol": identity(config.eval.protocol),
        "metrics": metrics,
        "input": rainy,
        "datasets": [asdict(item) for item in scores],
        "chosen_on_test": config.data.choose_on_test,
    }


def mlflow_test_metrics(test: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that `score_test` returns, under their names in MLflow."""
    rainy = {f"input_{name}": value for name, value in test["input"].items()}
    return {f"{TEST}{name}": value for name, value in {**test["metrics"], **rainy}.items()}


def mlflow_metrics(scores: Sequence[DatasetScores]) -> dict[str, float]:
    """The mean metrics on the validation images, under their names in MLflow."""
    metrics, rainy = overall(scores)
    return {**metrics, **{f"input_{name}": value for name, value in rainy.items()}}


def result_of(
    config: Config,
    outcome: Outcome,
    scores: Sequence[DatasetScores],
    test: dict[str, Any] | None,
) -> dict[str, Any]:
    """What `derainctl train --json` prints, apart from the MLflow run and the total time.

    `metrics`, `input` and `datasets` are those of validation.
    """
    metrics, rainy = overall(scores)
    return {
        "run": config.name,
        "folder": str(config.folder),
        "steps": outcome.steps,
        "train_seconds": outcome.seconds,
        "resumed_from_step": outcome.resumed_from_step,
        "best": dict(outcome.best),
        "rollbacks": outcome.rollbacks,
        "loss": {"first": outcome.loss_first, "last": outcome.loss_last},
        "metrics": metrics,
        "input": rainy,
        "protocol": identity(config.eval.protocol),
        "datasets": [asdict(item) for item in scores],
        "test": test,
        "checkpoint": str(outcome.checkpoint),
        "weights_sha256": outcome.weights_sha256,
    }
