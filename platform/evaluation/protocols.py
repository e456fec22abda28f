"""PSNR and SSIM on the luma of two images, each computed under a named, pinned protocol.

A value without the name of its protocol is meaningless: rounding the luma alone moves PSNR by
0.09 dB at 39 dB. docs/reference/protocols.md says which published tables used which protocol.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from scipy.ndimage import correlate1d

from derain.errors import DataError

PSNR_CAP_DB = 100.0
"""The PSNR of identical images is infinite, which would make every mean infinite."""

PEAK = 255.0
SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2

LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
"""ITU-R BT.601, studio swing, as MATLAB's `rgb2ycbcr` computes it: Y is in [16, 235]."""
LUMA_OFFSET = 16.0

Luma = Float64[np.ndarray, "height width"]


@dataclass(frozen=True)
class Protocol:
    """The choices in a measurement that must agree before two values can be compared."""

    name: str
    rounded_luma: bool
    """Y is rounded to whole levels, as MATLAB's `rgb2ycbcr` does with uint8 images."""
    downsampled_ssim: bool
    """SSIM first shrinks both images by max(1, round(shorter side / 256)), with a box filter."""
    truncated_output: bool = False
    """The network's output is truncated to 8 bits, as in PReNet's test script, instead of rounded;
    this changes PSNR by 0.17 dB at 37 dB."""

    @property
    def least_px(self) -> int:
        """The shortest side of an image that can be measured: one window of SSIM. An image that
        `downsampled_ssim` shrinks has more than 128 px on each side afterwards."""
        return SSIM_WINDOW_PX


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("rain13k", rounded_luma=True, downsampled_ssim=False),
        Protocol("five_set", rounded_luma=False, downsampled_ssim=True),
        Protocol("prenet", rounded_luma=False, downsampled_ssim=True, truncated_output=True),
    )
}


@dataclass(frozen=True)
class Scores:
    """The similarity of one derained image to the clean one; larger is better for both."""

    psnr_y: float
    """Peak signal-to-noise ratio of Y in dB, at most `PSNR_CAP_DB`."""
    ssim_y: float
    """Mean structural similarity of Y, in [-1, 1]."""


def score(derained: np.ndarray, clean: np.ndarray, protocol: str = "rain13k") -> Scores:
    """Measure a derained image against the clean one.

    Both are HWC, RGB, uint8 in 0..255, of equal shape, at least 11 px on each side; nothing is
    cropped or resized.

    PSNR is 20 log10(255 / sqrt(mean((Y1 - Y2)^2))). SSIM is Wang et al. 2004 (Image Quality
    Assessment: From Error Visibility to Structural Similarity), equation 13 averaged as in 17:
    11x11 gaussian window of sigma 1.5, K = (0.01, 0.03), L = 255, whole windows only.

    Raises:
        DataError: wrong shape, channel count or dtype, too small, or an unknown protocol.
    """
    chosen = _protocol(protocol)
    _check(derained, "derained")
    _check(clean, "clean")
    if derained.shape != clean.shape:
        raise DataError(
            f"The derained image is {_size(derained)} and the clean one {_size(clean)}; "
            "they must have the same size. Check how the files are paired."
        )
    first, second = _luma(derained, chosen.rounded_luma), _luma(clean, chosen.rounded_luma)
    psnr_db = _psnr(first, second)
    if chosen.downsampled_ssim:
        first, second = _downsampled(first), _downsampled(second)
    return Scores(psnr_y=psnr_db, ssim_y=_ssim(first, second))


def quantised(levels: np.ndarray, protocol: str = "rain13k") -> np.ndarray:
    """A network's output, in 0..255, as the uint8 image that a protocol scores; same shape."""
    if levels.dtype == np.uint8:
        return levels
    to_integers = np.floor if _protocol(protocol).truncated_output else np.rint
    return to_integers(levels).astype(np.uint8)


def check_protocol(name: str) -> None:
    """Raise DataError for an unknown protocol."""
    _protocol(name)


def least_px(protocols: Sequence[str]) -> int:
    """The shortest side of an image that all these protocols can measure."""
    return max(_protocol(name).least_px for name in protocols)


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise DataError(f"Unknown protocol {name!r}; choose from: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def _check(image: np.ndarray, which: str) -> None:
    if image.dtype != np.uint8:
        raise DataError(
            f"The {which} image is {image.dtype}, expected uint8 in 0..255. "
            "Clamp to [0, 1], multiply by 255 and round."
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"The {which} image has the shape {image.shape}, expected (height, width, 3), RGB."
        )
    if min(image.shape[:2]) < SSIM_WINDOW_PX:
        raise DataError(
            f"The {which} image is {_size(image)}; SSIM needs at least "
            f"{SSIM_WINDOW_PX} px on each side."
        )


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]} px"


def _luma(image: UInt8[np.ndarray, "height width 3"], rounded: bool) -> Luma:
    luma = LUMA_OFFSET + image.astype(np.float64) @ LUMA_WEIGHTS
    return np.rint(luma) if rounded else luma


def _psnr(first: Luma, second: Luma) -> float:
    mean_squared_error = float(np.mean((first - second) ** 2))
    if mean_squared_error == 0.0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, float(10.0 * np.log10(PEAK**2 / mean_squared_error)))


def _downsampled(luma: Luma) -> Luma:
    """Box-filter and decimate, as Wang's `ssim.m` does with `imfilter(..., 'symmetric', 'same')`.

    Every `factor`-th pixel becomes the mean of the factor x factor window around it; an even
    window extends one pixel further right and down than left and up.
    """
    factor = max(1, int(min(luma.shape) / 256 + 0.5))  # MATLAB rounds halves up
    if factor == 1:
        return luma
    before = (factor - 1) // 2
    padded = np.pad(luma, (before, factor - 1 - before), mode="symmetric")
    height, width = luma.shape
    shifted = [
        padded[down : down + height : factor, right : right + width : factor]
        for down in range(factor)
        for right in range(factor)
    ]
    return np.mean(shifted, axis=0)


def _gaussian() -> Float64[np.ndarray, " taps"]:
    distance = np.arange(SSIM_WINDOW_PX) - SSIM_WINDOW_PX // 2
    weights = np.exp(-(distance**2) / (2.0 * SSIM_SIGMA_PX**2))
    return weights / weights.sum()


def _ssim(first: Luma, second: Luma) -> float:
    mean_first, mean_second = _local_mean(first), _local_mean(second)
    product = mean_first * mean_second
    squares = mean_first**2 + mean_second**2
    # The formula needs only the sum of both variances: four filtered maps instead of five.
    covariance = _local_mean(first * second) - product
    variances = _local_mean(first**2 + second**2) - squares
    numerator = (2.0 * product + SSIM_C1) * (2.0 * covariance + SSIM_C2)
    return float(np.mean(numerator / ((squares + SSIM_C1) * (variances + SSIM_C2))))


def _local_mean(values: Luma) -> Luma:
    """Gaussian-weighted means at the positions where the whole window is inside the image."""
    weights, margin = _gaussian(), SSIM_WINDOW_PX // 2
    rows = correlate1d(values, weights, axis=0)[margin:-margin]
    return correlate1d(rows, weights, axis=1)[:, margin:-margin]
