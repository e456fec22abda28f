"""The metrics of a network on a dataset, per image, next to those of the rainy input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from derain.data.loading.cache import Pixels
from derain.data.prepared.manifest import Prepared
from derain.errors import DerainError
from derain.evaluation.protocols import PSNR_CAP_DB, least_px, quantised, score

Derain = Callable[[np.ndarray], np.ndarray]
"""Rainy image, uint8 HWC RGB -> derained: uint8, or float levels in 0..255 for scoring."""


@dataclass(frozen=True)
class ImageScores:
    """The metrics of one image: of the network's output, and of its rainy input."""

    key: str
    metrics: dict[str, float]
    input: dict[str, float]


@dataclass(frozen=True)
class UnscoredImage:
    """An image that could not be scored, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class DatasetScores:
    """The mean metrics of one dataset, and those of each image that was scored."""

    name: str
    manifest_sha256: str
    pictures: int
    metrics: dict[str, float]
    input: dict[str, float]
    per_picture: list[ImageScores] = field(repr=False)
    left_out: list[UnscoredImage] = field(default_factory=list)
    identical: int = 0
    """Images that equal the clean one (PSNR is capped): each is in the mean with `PSNR_CAP_DB`."""


def score_dataset(
    derain: Derain, dataset: Prepared, pixels: Pixels, protocol: str, *, name: str | None = None
) -> DatasetScores:
    """The metrics of every image of a dataset under one protocol, and their means.

    `name` replaces that of the folder. Pairs that cannot be decoded are in `left_out`. Raises
    DerainError for an image that is too small for the protocol, and if all pairs are left out.
    """
    scores: list[ImageScores] = []
    left_out: list[UnscoredImage] = []
    for at, key in enumerate(dataset.column("key").tolist()):
        pair = pixels[at]
        if at in pixels.left_out:  # `pair` is another one
            left_out.append(UnscoredImage(key, pixels.left_out[at]))
        else:
            scores.append(score_image(derain(pair[0]), key, pair, protocol))
    if not scores:
        reason = left_out[0].reason if left_out else "it has no pairs"
        raise DerainError(f"{dataset.folder}: no image of it could be scored: {reason}")
    return with_means(name or dataset.folder.name, dataset, scores, left_out)


def too_small(dataset: Prepared, protocols: Sequence[str]) -> dict[int, str]:
    """By their number, the images of a dataset that the protocols cannot measure, and why not."""
    least = least_px(protocols)
    named = " and ".join(protocols) + (" needs" if len(protocols) == 1 else " need")
    heights, widths = sizes(dataset)
    keys = dataset.arrow("key")
    return {
        at: f"image {keys[at].as_py()} is {widths[at]}x{heights[at]} px; {named} at least "
        f"{least} px on each side, for SSIM"
        for at in np.flatnonzero(np.minimum(heights, widths) < least).tolist()
    }


def sizes(dataset: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """The heights and the widths of the images of a dataset, in pixels, from its index."""
    return dataset.column("height"), dataset.column("width")


def overall(scores: Sequence[DatasetScores]) -> tuple[dict[str, float], dict[str, float]]:
    """(metrics, input): the mean of the datasets' means, as the column Average in papers."""
    return _mean([item.metrics for item in scores]), _mean([item.input for item in scores])


def _mean(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(item[name] for item in metrics) for name in metrics[0]}


def with_means(
    name: str, dataset: Prepared, scores: list[ImageScores], left_out: list[UnscoredImage]
) -> DatasetScores:
    """The scores of a dataset from those of its images, in the order of the dataset."""
    return DatasetScores(
        name=name,
        manifest_sha256=dataset.sha256(),
        pictures=len(scores),
        metrics=_mean([item.metrics for item in scores]),
        input=_mean([item.input for item in scores]),
        per_picture=scores,
        left_out=left_out,
        identical=sum(map(_is_identical, scores)),
    )


def _is_identical(image: ImageScores) -> bool:
    """Whether the output is the clean image; never by a metric without reference."""
    return any(
        name.startswith("psnr_") and value >= PSNR_CAP_DB for name, value in image.metrics.items()
    )


def score_image(
    levels: np.ndarray, key: str, pair: np.ndarray | tuple[np.ndarray, np.ndarray], protocol: str
) -> ImageScores:
    """The metrics of a network's output, levels in 0..255, and of the rainy image of its pair."""
    rain, clean = pair
    return ImageScores(
        key=key,
        metrics=score(quantised(levels, protocol), clean, protocol),
        input=score(rain, clean, protocol),
    )
