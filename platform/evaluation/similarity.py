"""The parts of PSNR and SSIM: luma, reduction, squared error, and SSIM with either window."""

from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8
from scipy.ndimage import correlate1d, uniform_filter1d

PEAK = 255.0
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2
SSIM_SIGMA_PX = 1.5

LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
"""ITU-R BT.601, studio swing, as MATLAB's `rgb2ycbcr` computes it: Y is in [16, 235]."""
LUMA_OFFSET = 16.0

Window = Literal["gaussian", "uniform"]
LEAST_PX: dict[Window, int] = {"gaussian": 11, "uniform": 7}
"""The side of each window."""

Plane = Float64[np.ndarray, "height width"]
Planes = Float64[np.ndarray, "channels height width"]


def luma(image: UInt8[np.ndarray, "height width 3"], rounded: bool) -> Plane:
    """Y in [16, 235] of an RGB image, exact or rounded to whole levels."""
    values = LUMA_OFFSET + image.astype(np.float64) @ LUMA_WEIGHTS
    return np.rint(values) if rounded else values


def mean_squared_error(first: Planes, second: Planes) -> float:
    """Over all values of all channels."""
    return float(np.mean((first - second) ** 2))


def downsampled(planes: Planes) -> Planes:
    """Box-filter and decimate, as Wang's `ssim.m` does with `imfilter(..., 'symmetric', 'same')`.

    Every `factor`-th pixel becomes the mean of the factor x factor window around it; an even
    window extends one pixel further right and down than left and up.
    """
    height, width = planes.shape[1:]
    factor = max(1, int(min(height, width) / 256 + 0.5))  # MATLAB rounds halves up
    if factor == 1:
        return planes
    sides = ((factor - 1) // 2, factor - 1 - (factor - 1) // 2)
    padded = np.pad(planes, ((0, 0), sides, sides), mode="symmetric")
    shifted = [
        padded[:, down : down + height : factor, right : right + width : factor]
        for down in range(factor)
        for right in range(factor)
    ]
    return np.mean(shifted, axis=0)


def ssim(first: Planes, second: Planes, window: Window) -> float:
    """The mean structural similarity over whole windows, and over the channels."""
    return float(np.mean([_ssim(a, b, window) for a, b in zip(first, second, strict=True)]))


def _ssim(first: Plane, second: Plane, window: Window) -> float:
    mean_first, mean_second = _local_mean(first, window), _local_mean(second, window)
    product = mean_first * mean_second
    squares = mean_first**2 + mean_second**2
    # The formula needs only the sum of both variances: four filtered maps instead of five.
    covariance = _local_mean(first * second, window) - product
    variances = _local_mean(first**2 + second**2, window) - squares
    if window == "uniform":  # scikit-image divides by one less than the number of pixels
        count = LEAST_PX[window] ** 2
        covariance, variances = (each * count / (count - 1) for each in (covariance, variances))
    numerator = (2.0 * product + SSIM_C1) * (2.0 * covariance + SSIM_C2)
    return float(np.mean(numerator / ((squares + SSIM_C1) * (variances + SSIM_C2))))


def _gaussian() -> Float64[np.ndarray, " taps"]:
    distance = np.arange(11) - 5
    weights = np.exp(-(distance**2) / (2.0 * SSIM_SIGMA_PX**2))
    return weights / weights.sum()


def _local_mean(values: Plane, window: Window) -> Plane:
    """Weighted means at the positions where the whole window is inside the image."""
    size = LEAST_PX[window]
    inside = slice(size // 2, -(size // 2))
    if window == "uniform":
        return uniform_filter1d(uniform_filter1d(values, size, 0)[inside], size, 1)[:, inside]
    weights = _gaussian()
    return correlate1d(correlate1d(values, weights, axis=0)[inside], weights, axis=1)[:, inside]
