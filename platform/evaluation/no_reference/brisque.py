"""BRISQUE: Mittal, Moorthy and Bovik 2012, No-reference image quality assessment in the spatial
domain. A support vector regression on natural scene statistics, the LIVE model; lower is better.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from derain.errors import DataError
from derain.evaluation.no_reference.statistics import fitted, normalised, offset, spread

PARAMETERS = Path(__file__).parent / "parameters/brisque_live.npz"

LEAST_PX = 14
"""One window of the local statistics at half size."""

GREY_WEIGHTS = np.array([0.2125, 0.7154, 0.0721]) / 255.0
"""scikit-image's `rgb2gray`: in [0, 1]."""

HALVING = np.array([-3.0, 19.0, 19.0, -3.0]) / 32
"""OpenCV's cubic resizing by a half: the kernel with a = -3/4, without antialiasing."""

Plane = Float64[np.ndarray, "height width"]


class Brisque:
    """BRISQUE with the LIVE model, at the image's own size; it can be negative.

    Grey values, borders (zeros) and resizing are those of the packages brisque and image-quality.
    The shape of a distribution is taken from the LIVE release's table.
    """

    identity = "v1 (LIVE model, native size)"

    def __init__(self) -> None:
        with np.load(PARAMETERS) as values:
            self._model = {name: values[name] for name in values.files}

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> float:
        """Raises DataError for an image that is too small or has no structure."""
        if min(image.shape[:2]) < LEAST_PX:
            raise DataError(
                f"The image is {image.shape[1]}x{image.shape[0]} px; BRISQUE needs at least "
                f"{LEAST_PX} px on each side."
            )
        grey = image @ GREY_WEIGHTS
        features = np.concatenate([_features(grey), _features(_halved(grey))])
        if image.min() == image.max() or np.isnan(features).any():
            raise DataError("The image has no structure that BRISQUE could measure.")
        model = self._model
        scaled = 2 * (features - model["lowest"]) / (model["highest"] - model["lowest"]) - 1
        distances = np.sum((model["vectors"] - scaled) ** 2, axis=1)
        return float(model["weights"] @ np.exp(-model["gamma"] * distances) - model["rho"])


def _features(grey: Plane) -> Float64[np.ndarray, " 18"]:
    """Shape and variance of the coefficients; shape, mean and two variances of four products."""
    coefficients = normalised(grey, 1.0, "constant")
    shape, left, right = fitted(coefficients.reshape(1, -1))
    features = [shape, (left**2 + right**2) / 2]
    for products in (
        coefficients[:, :-1] * coefficients[:, 1:],
        coefficients[:-1] * coefficients[1:],
        coefficients[:-1, :-1] * coefficients[1:, 1:],
        coefficients[1:, :-1] * coefficients[:-1, 1:],
    ):
        shape, left, right = fitted(products.reshape(1, -1))
        mean = (right - left) * spread(shape) * offset(shape)
        features += [shape, mean, left**2, right**2]
    return np.concatenate(features)


def _halved(grey: Plane) -> Plane:
    """Both sides halved (rounded half to even, as OpenCV does), the border repeated."""
    for axis in (0, 1):
        count = round(grey.shape[axis] / 2)
        taps = [
            weight * np.take(grey, np.arange(2 * count, step=2) + tap, axis, mode="clip")
            for tap, weight in enumerate(HALVING, start=-1)
        ]
        grey = np.sum(taps, axis=0)
    return grey
