"""What protocols do before SSIM: luma, squared error, and reduction to half size or less."""

import numpy as np
from jaxtyping import Float64, UInt8

LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
"""ITU-R BT.601, studio swing, as MATLAB's `rgb2ycbcr` computes it: Y is in [16, 235]."""
LUMA_OFFSET = 16.0

ROWS = 32
"""Rows that are computed at a time: they stay in the cache."""

Plane = Float64[np.ndarray, "height width"]
Planes = Float64[np.ndarray, "channels height width"]


def luma(image: UInt8[np.ndarray, "height width 3"], rounded: bool) -> Plane:
    """Y in [16, 235] of an RGB image, exact or rounded to whole levels.

    Not a product with a vector: a library may add in another order on another machine or with
    other threads, and a tie would be rounded the other way.
    """
    values = np.empty(image.shape[:2])
    term = np.empty((min(ROWS, len(image)), image.shape[1]))
    for top in range(0, len(image), ROWS):
        rows, out = image[top : top + ROWS], values[top : top + ROWS]
        np.multiply(rows[..., 0], LUMA_WEIGHTS[0], out=out)
        for channel in (1, 2):
            out += np.multiply(rows[..., channel], LUMA_WEIGHTS[channel], out=term[: len(out)])
        out += LUMA_OFFSET
        if rounded:
            np.rint(out, out=out)
    return values


def mean_squared_error(first: Planes, second: Planes) -> float:
    """Over all values of all channels."""
    total = 0.0
    for top in range(0, first.shape[1], ROWS):
        difference = first[:, top : top + ROWS] - second[:, top : top + ROWS]
        difference *= difference
        total += float(difference.sum())
    return total / first.size


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
