"""Paired crop, flip and rotation: a pure function of (seed, sample id, times it came before)."""

from dataclasses import dataclass

import numpy as np

from derain.data.loading.order import mix64


@dataclass(frozen=True)
class Draws:
    """Uniform draws of samples: one number in [0, 1) a sample, and one of the 8 symmetries."""

    top: np.ndarray
    left: np.ndarray
    symmetry: np.ndarray


SYMMETRIES = {"none": (0,), "flip": (0, 4), "dihedral": tuple(range(8))}
"""Which of the 8 symmetries of the square each augmentation draws from."""


def draw(seed: int, times: np.ndarray, ids: np.ndarray, augment: str = "dihedral") -> Draws:
    """The draws of these samples, each of which came `times` before: no history is needed."""
    allowed = np.asarray(SYMMETRIES[augment])

    def uniform(salt: int) -> np.ndarray:
        return (mix64(seed, 2, salt, times, ids) >> np.uint64(11)) * 2.0**-53

    chosen = (uniform(2) * len(allowed)).astype(np.int64)
    return Draws(uniform(0), uniform(1), allowed[chosen])


def crop(pair: np.ndarray, top: float, left: float, crop_px: int) -> np.ndarray:
    """A square of both images: uint8 (2, crop_px, crop_px, 3), a view where it can be.

    `pair` is uint8 (2, height, width, 3); `top` and `left` in [0, 1) choose among all positions.
    An image that is smaller than the crop is reflected at its lower and right edges.
    """
    pair = _at_least(pair, crop_px)
    y = int(top * (pair.shape[1] - crop_px + 1))
    x = int(left * (pair.shape[2] - crop_px + 1))
    return pair[:, y : y + crop_px, x : x + crop_px]


def turn(pair: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the 8 symmetries of a square, the same for both images, as a view."""
    transposed, down, right = _STEPS[symmetry]
    turned = pair.transpose(0, 2, 1, 3) if transposed else pair
    return turned[:, ::down, ::right]


def write_turned(out: np.ndarray, square: np.ndarray, symmetry: int) -> None:
    """Copy a square under one of the 8 symmetries.

    Where rows do not stay rows, numpy would copy three bytes at a time (160 us a pair of 128 px);
    a copy into the processor's cache and one channel after the other takes 40 us.
    """
    if symmetry in _WHOLE_ROWS:
        out[...] = turn(square, symmetry)
        return
    turned = turn(square.copy(), symmetry)
    for channel in range(3):
        out[..., channel] = turned[..., channel]


_STEPS = (
    (False, 1, 1),
    (True, -1, 1),
    (False, -1, -1),
    (True, 1, -1),
    (False, 1, -1),
    (True, -1, -1),
    (False, -1, 1),
    (True, 1, 1),
)
"""Of each symmetry: transposed first, then the step down the rows and along them."""
_WHOLE_ROWS = frozenset(
    number for number, (transposed, _, right) in enumerate(_STEPS) if not transposed and right == 1
)


def _at_least(pair: np.ndarray, crop_px: int) -> np.ndarray:
    missing_y = max(0, crop_px - pair.shape[1])
    missing_x = max(0, crop_px - pair.shape[2])
    if not missing_y and not missing_x:
        return pair
    return np.pad(pair, ((0, 0), (0, missing_y), (0, missing_x), (0, 0)), mode="reflect")
