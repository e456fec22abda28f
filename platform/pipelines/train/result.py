"""The end of a run: its checkpoint is scored on the held-out datasets."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from derain.config import Config
from derain.data.images.decode import encode_png
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import open_prepared
from derain.data.prepared.naming import distinct_names
from derain.evaluation.gallery import gallery
from derain.evaluation.scoring import DatasetScores, overall, score_dataset
from derain.inference.predictor import Predictor
from derain.pipelines.train.run_folder import GALLERY
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.training.loop import Outcome
from derain.training.process.device import pick_device

GALLERY_IMAGES = 4


def score_checkpoint(config: Config, outcome: Outcome, record: RunLog) -> list[DatasetScores]:
    """Score the run's checkpoint; for a finished run also write a gallery and record the scores."""
    saved = checkpoint.load(outcome.checkpoint)
    network = restore_network(saved, trust=True)  # this very run has trained it
    predictor = Predictor(network, pick_device(config.train))
    datasets = [open_prepared(folder) for folder in config.data.eval]
    pixels = open_all_pixels(datasets, config.data)
    names = distinct_names(config.data.eval)
    scores = [
        score_dataset(predictor.levels, dataset, pairs, config.eval.protocol, name=name)
        for dataset, pairs, name in zip(datasets, pixels, names, strict=True)
    ]
    if outcome.finished:
        grid = gallery([predictor.derain], pixels[0], GALLERY_IMAGES)
        (config.folder / GALLERY).write_bytes(encode_png(grid))
        record.image(GALLERY, grid)
        metrics, rainy = overall(scores)
        record.metrics(outcome.steps, metrics)
        record.metrics(outcome.steps, {f"input_{name}": value for name, value in rainy.items()})
    return scores


def result_of(config: Config, outcome: Outcome, scores: Sequence[DatasetScores]) -> dict[str, Any]:
    """What `derainctl train --json` prints, apart from the MLflow run and the total time."""
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
        "protocol": config.eval.protocol,
        "datasets": [asdict(item) for item in scores],
        "checkpoint": str(outcome.checkpoint),
        "weights_sha256": outcome.weights_sha256,
    }
