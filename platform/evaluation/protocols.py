"""PSNR and SSIM of two images, each computed under a named, pinned protocol.

A value without the name of its protocol is meaningless: the choice of protocol is worth 4.7 dB on
one and the same image. docs/reference/protocols.md says which published tables used which one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from derain.errors import DataError
from derain.evaluation.luma import downsampled, luma, mean_squared_error
from derain.evaluation.ssim import LEAST_PX, PEAK, Window, ssim

PSNR_CAP_DB = 100.0
"""The PSNR of identical images is infinite, which would make every mean infinite."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The choices in a measurement that must agree before two values can be compared."""

    name: str
    version: int = 1
    """Goes up when the same images get other values than before."""
    channels: Literal["y", "rgb"] = "y"
    """PSNR and SSIM of the luma Y; or PSNR over all values of RGB, and the mean of the SSIM of
    each channel."""
    rounded_luma: bool = False
    """Y is rounded to whole levels, as MATLAB's `rgb2ycbcr` does with uint8 images."""
    downsampled_ssim: bool = False
    """SSIM first shrinks both images by max(1, round(shorter side / 256)), with a box filter."""
    truncated_output: bool = False
    """The network's output is truncated to 8 bits, as in PReNet's test script, instead of rounded;
    this changes PSNR by 0.17 dB at 37 dB."""
    window: Window = "gaussian"
    """Window of SSIM: 11x11 gaussian; or 7x7 uniform with unbiased variances, scikit-image's."""
    border_px: int = 0
    """Width of the border that neither metric looks at."""

    @property
    def least_px(self) -> int:
        """The shortest side of an image that can be measured: one window of SSIM and the border.
        An image that `downsampled_ssim` shrinks has more than 128 px on each side afterwards."""
        return LEAST_PX[self.window] + 2 * self.border_px

    @property
    def metrics(self) -> tuple[str, str]:
        """The names of PSNR and SSIM under this protocol; `psnr_y` and `ssim_y`, for example."""
        return f"psnr_{self.channels}", f"ssim_{self.channels}"


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="rain13k", rounded_luma=True),
        Protocol(name="five_set", downsampled_ssim=True),
        Protocol(name="prenet", downsampled_ssim=True, truncated_output=True),
        Protocol(name="basicsr_y"),
        Protocol(name="rgb_skimage", channels="rgb", window="uniform"),
        Protocol(name="rgb_toolbox", channels="rgb"),
        Protocol(name="hqrain", border_px=4),
    )
}


def identity(name: str) -> str:
    """A protocol with its version, as it is stored beside every metric: `rain13k v1`.

    Metrics with different identities are not comparable. Raises DataError for an unknown protocol.
    """
    protocol = _protocol(name)
    return f"{protocol.name} v{protocol.version}"


def metric_names(name: str) -> tuple[str, str]:
    """The names of PSNR and SSIM under a protocol. Raises DataError for an unknown protocol."""
    return _protocol(name).metrics


def score(derained: np.ndarray, clean: np.ndarray, protocol: str = "rain13k") -> dict[str, float]:
    """Measure a derained image against the clean one; larger is better for both metrics.

    Both are HWC, RGB, uint8 in 0..255, of equal shape, at least `least_px` on each side; nothing
    is resized, and nothing but the protocol's border is cropped.

    Returns PSNR in dB, at most `PSNR_CAP_DB`, and SSIM in [-1, 1], by the names of
    `metric_names`. PSNR is 20 log10(255 / sqrt(mean((a - b)^2))). SSIM is Wang et al. 2004 (Image
    Quality Assessment: From Error Visibility to Structural Similarity), equation 13 averaged as in
    17: K = (0.01, 0.03), L = 255, whole windows only.

    Raises:
        DataError: wrong shape, channel count or dtype, too small, or an unknown protocol.
    """
    chosen = _protocol(protocol)
    _check(derained, "derained", chosen)
    _check(clean, "clean", chosen)
    if derained.shape != clean.shape:
        raise DataError(
            f"The derained image is {_size(derained)} and the clean one {_size(clean)}; "
            "they must have the same size. Check how the files are paired."
        )
    first, second = _planes(derained, chosen), _planes(clean, chosen)
    psnr_db = _psnr(mean_squared_error(first, second))
    if chosen.downsampled_ssim:
        first, second = downsampled(first), downsampled(second)
    psnr_name, ssim_name = chosen.metrics
    return {psnr_name: psnr_db, ssim_name: ssim(first, second, chosen.window)}


def quantised(levels: np.ndarray, protocol: str = "rain13k") -> np.ndarray:
    """A network's output, in 0..255, as the uint8 image that a protocol scores; same shape."""
    if levels.dtype == np.uint8:
        return levels
    to_integers = np.floor if _protocol(protocol).truncated_output else np.rint
    return to_integers(levels).astype(np.uint8)


def least_px(protocols: Sequence[str]) -> int:
    """The shortest side of an image that all these protocols can measure."""
    return max(_protocol(name).least_px for name in protocols)


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise DataError(f"Unknown protocol {name!r}; choose from: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def _check(image: np.ndarray, which: str, protocol: Protocol) -> None:
    if image.dtype != np.uint8:
        raise DataError(
            f"The {which} image is {image.dtype}, expected uint8 in 0..255. "
            "Clamp to [0, 1], multiply by 255 and round."
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"The {which} image has the shape {image.shape}, expected (height, width, 3), RGB."
        )
    if min(image.shape[:2]) < protocol.least_px:
        raise DataError(
            f"The {which} image is {_size(image)}; {protocol.name} needs at least "
            f"{protocol.least_px} px on each side, for SSIM."
        )


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]} px"


def _planes(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """What is compared, without the border: float64 (1 or 3, height, width) in 0..255."""
    if protocol.border_px:
        inside = slice(protocol.border_px, -protocol.border_px)
        image = image[inside, inside]
    if protocol.channels == "rgb":
        return np.moveaxis(image, 2, 0).astype(np.float64)
    return luma(image, protocol.rounded_luma)[None]


def _psnr(mse: float) -> float:
    if mse == 0.0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, float(10.0 * np.log10(PEAK**2 / mse)))
