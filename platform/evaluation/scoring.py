"""The metrics of a network on a dataset, per image, next to those of the rainy input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from derain.data.loading.cache import Pixels
from derain.data.prepared.manifest import Prepared
from derain.evaluation.protocols import quantised, score

Derain = Callable[[np.ndarray], np.ndarray]
"""Rainy image, uint8 HWC RGB -> derained: uint8, or float levels in 0..255 for scoring."""
METRICS = ("psnr_y", "ssim_y")


@dataclass(frozen=True)
class ImageScores:
    """The metrics of one image: of the network's output, and of its rainy input."""

    key: str
    metrics: dict[str, float]
    input: dict[str, float]


@dataclass(frozen=True)
class DatasetScores:
    """The mean metrics of one dataset, and those of each image."""

    name: str
    manifest_sha256: str
    pictures: int
    metrics: dict[str, float]
    input: dict[str, float]
    per_picture: list[ImageScores] = field(repr=False)


def score_dataset(
    derain: Derain, dataset: Prepared, pixels: Pixels, protocol: str
) -> DatasetScores:
    """The metrics of every image of a dataset under one protocol, and their means."""
    return score_under_protocols(derain, dataset, pixels, [protocol])[protocol]


def score_under_protocols(
    derain: Derain, dataset: Prepared, pixels: Pixels, protocols: Sequence[str]
) -> dict[str, DatasetScores]:
    """The scores of a dataset by protocol; the network runs once per image."""
    scores: dict[str, list[ImageScores]] = {protocol: [] for protocol in protocols}
    for at, key in enumerate(dataset.column("key").tolist()):
        pair = pixels[at]
        derained = derain(pair[0])
        for protocol, images in scores.items():
            images.append(_score_image(derained, key, pair, protocol))
    return {protocol: _with_means(dataset, images) for protocol, images in scores.items()}


def overall(scores: Sequence[DatasetScores]) -> tuple[dict[str, float], dict[str, float]]:
    """(metrics, input): the mean of the datasets' means, as the column Average in papers."""
    return (
        {name: fmean(item.metrics[name] for item in scores) for name in METRICS},
        {name: fmean(item.input[name] for item in scores) for name in METRICS},
    )


def _with_means(dataset: Prepared, scores: list[ImageScores]) -> DatasetScores:
    return DatasetScores(
        name=dataset.folder.name,
        manifest_sha256=dataset.manifest.sha256(),
        pictures=len(scores),
        metrics={name: fmean(item.metrics[name] for item in scores) for name in METRICS},
        input={name: fmean(item.input[name] for item in scores) for name in METRICS},
        per_picture=scores,
    )


def _score_image(levels: np.ndarray, key: str, pair: np.ndarray, protocol: str) -> ImageScores:
    rain, clean = pair
    derained = quantised(levels, protocol)
    output, given = score(derained, clean, protocol), score(rain, clean, protocol)
    return ImageScores(
        key=key,
        metrics={name: getattr(output, name) for name in METRICS},
        input={name: getattr(given, name) for name in METRICS},
    )
