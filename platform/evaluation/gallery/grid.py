"""Grids of images of a dataset: rainy, derained by one or more networks, clean."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from derain.data.loading.cache import Pixels
from derain.evaluation.metric_names import psnr_name
from derain.evaluation.scoring import Derain


def gallery(networks: Sequence[Derain], pixels: Pixels, count: int) -> np.ndarray:
    """A grid of `count` images, spread evenly over the dataset; see `grid`."""
    picks = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)
    return grid(networks, pixels, picks.tolist())


def best_and_worst(scores: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """The indices of the `count` images with the highest PSNR and of the `count` with the lowest.

    Best first, worst last. Fewer than 2 `count` images are all returned, once each.
    """
    name = psnr_name(scores[0]["metrics"])
    order = sorted(range(len(scores)), key=lambda at: -scores[at]["metrics"][name])
    return order if len(order) <= 2 * count else order[:count] + order[-count:]


def grid(networks: Sequence[Derain], pixels: Pixels, picks: Sequence[int]) -> np.ndarray:
    """A row of rainy | derained by each network | clean for each picked image: uint8 HWC RGB.

    Smaller images are padded with white.
    """
    rows = []
    for pick in picks:
        rain, clean = pixels[pick]
        derained = [derain(rain) for derain in networks]
        rows.append(np.concatenate(_with_gaps([rain, *derained, clean], axis=1), axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    return np.concatenate(_with_gaps(padded, axis=0), axis=0)


def _with_gaps(images: Sequence[np.ndarray], axis: int) -> list[np.ndarray]:
    """The images with white gaps between them."""
    shape = list(images[0].shape)
    shape[axis] = 4
    gap = np.full(shape, 255, np.uint8)
    return [part for image in images for part in (gap, image)][1:]
