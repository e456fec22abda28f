"""Images of a dataset side by side: rainy, derained by one or more networks, clean."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from derain.data.loading.cache import Pixels
from derain.evaluation.scoring import Derain


def gallery(networks: Sequence[Derain], pixels: Pixels, count: int) -> np.ndarray:
    """A grid of rain | what each network makes of it | clean, one image a row: uint8 HWC RGB.

    The images are spread evenly over the dataset; smaller ones are padded with white.
    """
    picks = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)
    return grid(networks, pixels, picks.tolist())


def best_and_worst(scores: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """The numbers of the `count` images with the highest PSNR-Y, best first, and of as many with
    the lowest, worst last; every image once where there are fewer."""
    order = sorted(range(len(scores)), key=lambda at: -scores[at]["metrics"]["psnr_y"])
    return order if len(order) <= 2 * count else order[:count] + order[-count:]


def grid(networks: Sequence[Derain], pixels: Pixels, picks: Sequence[int]) -> np.ndarray:
    """The images of these numbers, a row each; smaller ones are padded with white."""
    rows = []
    for pick in picks:
        rain, clean = pixels[pick]
        derained = [derain(rain) for derain in networks]
        rows.append(np.concatenate(_spaced([rain, *derained, clean], axis=1), axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    return np.concatenate(_spaced(padded, axis=0), axis=0)


def _spaced(images: Sequence[np.ndarray], axis: int) -> list[np.ndarray]:
    """The images with a white line between them."""
    shape = list(images[0].shape)
    shape[axis] = 4
    gap = np.full(shape, 255, np.uint8)
    return [part for image in images for part in (gap, image)][1:]
