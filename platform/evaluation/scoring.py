"""A network's metrics on a dataset, image by image, beside those of the rainy input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from derain.data.loading.cache import Pixels
from derain.data.prepared.manifest import Prepared
from derain.evaluation.protocols import quantised, score

Derain = Callable[[np.ndarray], np.ndarray]
"""Rainy image, uint8 HWC RGB -> clean: uint8, or for scores its levels before rounding."""
METRICS = ("psnr_y", "ssim_y")


@dataclass(frozen=True)
class ImageScores:
    """One image: what the network made of it, and what it was given."""

    key: str
    metrics: dict[str, float]
    input: dict[str, float]


@dataclass(frozen=True)
class DatasetScores:
    """Means over the images of one dataset."""

    name: str
    manifest_sha256: str
    pictures: int
    metrics: dict[str, float]
    input: dict[str, float]
    per_picture: list[ImageScores] = field(repr=False)


def score_dataset(
    derain: Derain, dataset: Prepared, pixels: Pixels, protocol: str
) -> DatasetScores:
    """Scores of every image of a dataset and their means."""
    return score_under(derain, dataset, pixels, [protocol])[protocol]


def score_under(
    derain: Derain, dataset: Prepared, pixels: Pixels, protocols: Sequence[str]
) -> dict[str, DatasetScores]:
    """The scores of a dataset under each protocol; the network sees every image once."""
    scores: dict[str, list[ImageScores]] = {protocol: [] for protocol in protocols}
    for at, key in enumerate(dataset.column("key").tolist()):
        pair = pixels[at]
        derained = derain(pair[0])
        for protocol, found in scores.items():
            found.append(_score_image(derained, key, pair, protocol))
    return {protocol: _means(dataset, found) for protocol, found in scores.items()}


def overall(scores: Sequence[DatasetScores]) -> tuple[dict[str, float], dict[str, float]]:
    """(metrics, input): the plain mean of the datasets' means, as the papers' Average is."""
    return (
        {name: fmean(item.metrics[name] for item in scores) for name in METRICS},
        {name: fmean(item.input[name] for item in scores) for name in METRICS},
    )


def _means(dataset: Prepared, scores: list[ImageScores]) -> DatasetScores:
    return DatasetScores(
        name=f"{dataset.folder.name}",
        manifest_sha256=dataset.manifest.sha256(),
        pictures=len(scores),
        metrics={name: fmean(item.metrics[name] for item in scores) for name in METRICS},
        input={name: fmean(item.input[name] for item in scores) for name in METRICS},
        per_picture=scores,
    )


def _score_image(levels: np.ndarray, key: str, pair: np.ndarray, protocol: str) -> ImageScores:
    rain, clean = pair
    derained = quantised(levels, protocol)
    after, before = score(derained, clean, protocol), score(rain, clean, protocol)
    return ImageScores(
        key=key,
        metrics={name: getattr(after, name) for name in METRICS},
        input={name: getattr(before, name) for name in METRICS},
    )
