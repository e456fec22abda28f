"""NIQE: Mittal, Soundararajan and Bovik 2013, Making a "completely blind" image quality analyzer.

The distance of an image's natural scene statistics from those of pristine photographs, with the
parameters of the LIVE release. Lower is better.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from derain.errors import DataError
from derain.evaluation.luma import luma
from derain.evaluation.no_reference.statistics import fitted, normalised, offset, spread

PARAMETERS = Path(__file__).parent / "parameters/niqe_live.npz"

BLOCK_PX = 96
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""To each coefficient's neighbour, in rows and columns."""

HALVING = np.array([-3.0, -9.0, 29.0, 111.0, 111.0, 29.0, -9.0, -3.0]) / 256
"""MATLAB's `imresize` by a half: the cubic kernel with a = -1/2, stretched to eight pixels."""


class Niqe:
    """NIQE with the parameters of the LIVE release, at the image's own size."""

    identity = "v1 (LIVE parameters, rounded BT.601 Y, native size)"

    def __init__(self) -> None:
        with np.load(PARAMETERS) as values:
            self._mean, self._covariance = values["mean"], values["covariance"]

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> float:
        """Equation 10 of the paper.

        Raises DataError for an image with fewer than two blocks of 96 px that have structure.
        """
        features = _features(image)
        whole = features[~np.isnan(features).any(axis=1)]
        if len(whole) < 2:
            raise DataError(
                f"The image is {image.shape[1]}x{image.shape[0]} px with {len(whole)} blocks of "
                f"{BLOCK_PX} px that have structure; NIQE needs at least 2."
            )
        difference = self._mean - np.nanmean(features, axis=0)
        covariance = (self._covariance + np.cov(whole, rowvar=False)) / 2
        return float(np.sqrt(difference @ np.linalg.pinv(covariance) @ difference))


def _features(image: UInt8[np.ndarray, "height width 3"]) -> Float64[np.ndarray, "blocks 36"]:
    """18 features of each whole block, at full and at half size; NaN where one is undefined."""
    rows, columns = (side // BLOCK_PX for side in image.shape[:2])
    if not rows * columns:
        return np.empty((0, 36))
    values = luma(image[: rows * BLOCK_PX, : columns * BLOCK_PX], rounded=True)
    full = _block_features(normalised(values, 255.0, "nearest"), BLOCK_PX)
    half = _block_features(normalised(_halved(values), 255.0, "nearest"), BLOCK_PX // 2)
    return np.concatenate([full, half], axis=1)


def _block_features(
    coefficients: Float64[np.ndarray, "height width"], side: int
) -> Float64[np.ndarray, "blocks 18"]:
    rows, columns = (length // side for length in coefficients.shape)
    tiled = coefficients.reshape(rows, side, columns, side).swapaxes(1, 2)
    blocks = tiled.reshape(rows * columns, side, side)
    shape, left, right = fitted(blocks.reshape(len(blocks), -1))
    features = [shape, (left + right) / 2 * spread(shape)]
    for shift in SHIFTS:
        products = blocks * np.roll(blocks, shift, axis=(1, 2))
        shape, left, right = fitted(products.reshape(len(blocks), -1))
        left, right = left * spread(shape), right * spread(shape)
        features += [shape, (right - left) * offset(shape), left, right]
    return np.stack(features, axis=1)


def _halved(
    values: Float64[np.ndarray, "height width"],
) -> Float64[np.ndarray, "half_height half_width"]:
    """Both even sides halved, mirrored at the borders."""
    for axis in (0, 1):
        padded = np.pad(values, [(3, 3) if axis == at else (0, 0) for at in (0, 1)], "symmetric")
        count = values.shape[axis] // 2
        taps = [
            weight * np.take(padded, range(tap, tap + 2 * count, 2), axis)
            for tap, weight in enumerate(HALVING)
        ]
        values = np.sum(taps, axis=0)
    return values
