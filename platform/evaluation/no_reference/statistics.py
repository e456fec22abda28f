"""Natural scene statistics: normalised luma, and generalised gaussians fitted to it."""

import numpy as np
from jaxtyping import Float64
from scipy.ndimage import correlate1d
from scipy.special import gamma

WINDOW_PX = 7
WINDOW_SIGMA_PX = 7 / 6

SHAPES = np.arange(0.2, 10.001, 0.001)
"""The shapes that a fit chooses from, in both LIVE releases."""
_RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
"""Of each shape: squared mean absolute value by mean square. It rises with the shape."""

Plane = Float64[np.ndarray, "height width"]
Batch = Float64[np.ndarray, "samples values"]
Fit = tuple[np.ndarray, np.ndarray, np.ndarray]


def normalised(luma: Plane, peak: float, border: str) -> Plane:
    """MSCN coefficients: (luma - local mean) / (local deviation + peak / 255).

    `peak` is the largest luma, 1 or 255; `border` a mode of scipy.ndimage.correlate1d.
    """
    mean = _blurred(luma, border)
    deviation = np.sqrt(np.abs(_blurred(luma**2, border) - mean**2))
    return (luma - mean) / (deviation + peak / 255)


def fitted(samples: Batch) -> Fit:
    """Shape, left and right deviation of an asymmetric generalised gaussian, for each row.

    By moments, as in Lasmar et al. 2009 (Multiscale skewed heavy tailed model for texture
    analysis); exact zeros count for neither side. NaN for a row that lacks a side.
    """
    squares = samples**2
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (
            np.sqrt(np.sum(squares, axis=1, where=side) / np.count_nonzero(side, axis=1))
            for side in (samples < 0, samples > 0)
        )
        skew = left / right
        ratio = np.mean(np.abs(samples), axis=1) ** 2 / np.mean(squares, axis=1)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    return np.where(np.isnan(ratio), np.nan, _nearest_shape(ratio)), left, right


def spread(shape: np.ndarray) -> np.ndarray:
    """Scale of a generalised gaussian by its deviation."""
    return np.sqrt(gamma(1 / shape) / gamma(3 / shape))


def offset(shape: np.ndarray) -> np.ndarray:
    """Mean of an asymmetric generalised gaussian by the difference of its two scales."""
    return gamma(2 / shape) / gamma(1 / shape)


def _nearest_shape(ratio: np.ndarray) -> np.ndarray:
    after = np.clip(np.searchsorted(_RATIOS, ratio), 1, len(SHAPES) - 1)
    closer_below = ratio - _RATIOS[after - 1] <= _RATIOS[after] - ratio
    return SHAPES[after - closer_below]


def _blurred(values: Plane, border: str) -> Plane:
    distance = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-(distance**2) / (2 * WINDOW_SIGMA_PX**2))
    weights /= weights.sum()
    rows = correlate1d(values, weights, axis=0, mode=border)
    return correlate1d(rows, weights, axis=1, mode=border)
