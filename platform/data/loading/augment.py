"""Paired crop, flip and rotation: a pure function of (seed, sample id, number of earlier uses)."""

from dataclasses import dataclass

import cv2
import numpy as np

from derain.config.data import Augment
from derain.data.loading.order import mix64
from derain.errors import DataError
from derain.plugins.options import build_plugin
from derain.plugins.protocols import Augmentation
from derain.plugins.resolve import is_plugin


@dataclass(frozen=True)
class CropDraws:
    """Random crops: for each sample two numbers in [0, 1) and one of the 8 symmetries; and a random
    number, uint64, for an augmentation of the user's."""

    top: np.ndarray
    left: np.ndarray
    symmetry: np.ndarray
    number: np.ndarray


SYMMETRIES = {"none": (0,), "flip": (0, 4), "dihedral": tuple(range(8))}
"""The symmetries of the square, of 8, that each augmentation draws from."""


def draw_crops(
    seed: int, times: np.ndarray, ids: np.ndarray, augment: str = "dihedral"
) -> CropDraws:
    """The random crops of samples that were used `times` times before; needs no history."""
    allowed = np.asarray(SYMMETRIES[augment])

    def uniform(salt: int) -> np.ndarray:
        return (mix64(seed, 2, salt, times, ids) >> np.uint64(11)) * 2.0**-53

    chosen = (uniform(2) * len(allowed)).astype(np.int64)
    number = mix64(seed, 2, 3, times, ids)
    return CropDraws(uniform(0), uniform(1), allowed[chosen], number)


def build_augmentation(augment: Augment) -> Augmentation | None:
    """The augmentation of the user's that a config names; None for one of the platform's.

    Raises ConfigError.
    """
    if not is_plugin(augment.name):
        return None
    own: Augmentation = build_plugin(
        augment.name, augment.options, what="augmentation", key="data.augment"
    )
    return own


def augmented(own: Augmentation, square: np.ndarray, number: int) -> np.ndarray:
    """What an augmentation of the user's makes of a copy of a pair of crops.

    Raises DataError for a result of another shape or type.
    """
    found = own(square.copy(), number)
    if wrong := _unlike(found, square):
        raise DataError(
            f"data.augment: {type(own).__name__} returned {wrong}; expected uint8 of the shape "
            f"{square.shape}."
        )
    return found


def check_augmentation(own: Augmentation, side: int) -> str | None:
    """What is wrong with an augmentation of the user's, by some calls; None if nothing is."""
    pair = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    first, other, again = (own(pair.copy(), number) for number in (2**64 - 1, 7, 2**64 - 1))
    if wrong := _unlike(first, pair) or _unlike(other, pair):
        return wrong
    return None if np.array_equal(first, again) else "other pixels for the same pair and number"


def _unlike(found: object, square: np.ndarray) -> str | None:
    """What was found, if it has not the shape and type of a pair of crops."""
    if not isinstance(found, np.ndarray):
        return f"a {type(found).__name__}"
    if found.dtype != square.dtype or found.shape != square.shape:
        return f"{found.dtype} of the shape {found.shape}"
    return None


def crop(pair: np.ndarray, top: float, left: float, crop_px: int) -> np.ndarray:
    """A square of both images: uint8 (2, crop_px, crop_px, 3), a view if possible.

    `pair` is uint8 (2, height, width, 3); `top` and `left` in [0, 1) choose among all positions.
    An image smaller than the crop is extended by reflection at its lower and right edges.
    """
    _, height, width, _ = pair.shape
    if height < crop_px or width < crop_px:
        pair = _padded(pair, crop_px)
        _, height, width, _ = pair.shape
    y, x = corner((height, width), top, left, crop_px)
    return pair[:, y : y + crop_px, x : x + crop_px]


def corner(size: tuple[int, int], top: float, left: float, crop_px: int) -> tuple[int, int]:
    """The first row and column of a square that `top` and `left` in [0, 1) choose."""
    height, width = size
    return int(top * (height - crop_px + 1)), int(left * (width - crop_px + 1))


def transform(pair: np.ndarray, symmetry: int) -> np.ndarray:
    """A square under one of the 8 symmetries, the same for both images, as a view."""
    transposed, down, right = _STEPS[symmetry]
    view = pair.transpose(0, 2, 1, 3) if transposed else pair
    return view[:, ::down, ::right]


def write_transformed(out: np.ndarray, square: np.ndarray, symmetry: int) -> None:
    """Copy a square under one of the 8 symmetries: the bytes of `transform`.

    Both are uint8 (2, side, side, 3); the images of `out` are C-contiguous, rows of `square` are.
    numpy would move the three bytes of a pixel one at a time, OpenCV turns a pair of 128 px in 20
    us and flips it in 13 beside a copy of 34 from memory. What is fastest for each symmetry was
    measured: only a copy turns rows upside down for nothing, only in place is it fast to flip, and
    to turn from the cache's own memory is faster than from a copy.
    """
    transposed, down, right = _STEPS[symmetry]
    if not transposed:
        out[...] = square[:, ::down]
        if right == -1:
            for image in out:
                cv2.flip(image, _LEFT_RIGHT, image)
        return
    for image, turned in zip(square, out, strict=True):
        source = image if right == 1 else image[::-1].copy()
        if down == 1:
            cv2.transpose(source, turned)
        else:
            cv2.rotate(source, cv2.ROTATE_90_COUNTERCLOCKWISE, turned)


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
"""For each symmetry: whether to transpose first, then the steps along columns and rows."""
_LEFT_RIGHT = 1
"""OpenCV's code of that flip."""


def _padded(pair: np.ndarray, crop_px: int) -> np.ndarray:
    missing_y = max(0, crop_px - pair.shape[1])
    missing_x = max(0, crop_px - pair.shape[2])
    return np.pad(pair, ((0, 0), (0, missing_y), (0, missing_x), (0, 0)), mode="reflect")
