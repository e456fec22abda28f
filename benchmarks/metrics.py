"""PSNR-Y and SSIM-Y of one pair of images on one core, against other packages' ways of computing.

All start from the same two uint8 RGB images, compute the luma in float64 and give the same two
values within `TOLERANCE`. scikit-image is called as it is. BasicSR and pyiqa do not go together
with the installed torchvision, and their metrics are short, so what they compute is written out
here with the library that they call: OpenCV's `filter2D`, torch's `conv2d`, a window of 11x11.

The limit is the time that this machine takes for as many multiply-adds as the two passes of the
separable window need on four maps, in a product of matrices (512 x 512, float64).

    python -m benchmarks.metrics --size 512 384
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy and torch are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402
from skimage.color import rgb2ycbcr  # noqa: E402
from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # noqa: E402

from benchmarks.common import Row, compare, installed, main  # noqa: E402
from derain.evaluation.protocols import score  # noqa: E402

TOLERANCE = 1e-9
PROTOCOL = "basicsr_y"
MAPS, TAPS = 4, 11
GEMM_SIDE = 512
CALLS = 5
"""Measured per round; the row has the time of one."""

Values = tuple[float, float]
"""PSNR in dB and SSIM."""
Measure = Callable[[np.ndarray, np.ndarray], Values]


def ours(first: np.ndarray, second: np.ndarray) -> Values:
    """Ours: the protocol `basicsr_y`."""
    psnr, ssim = score(first, second, PROTOCOL).values()
    return psnr, ssim


def scikit_image(first: np.ndarray, second: np.ndarray) -> Values:
    """scikit-image's own functions, with the flags that give Wang's window."""
    one, other = rgb2ycbcr(first)[..., 0], rgb2ycbcr(second)[..., 0]
    ssim = structural_similarity(
        one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    return float(peak_signal_noise_ratio(one, other, data_range=255)), float(ssim)


def opencv(first: np.ndarray, second: np.ndarray) -> Values:
    """BasicSR's way: five maps through `cv2.filter2D`, borders cut off."""
    import cv2

    cv2.setNumThreads(1)
    kernel = cv2.getGaussianKernel(TAPS, 1.5)
    window = kernel @ kernel.T
    one, other = _luma(first), _luma(second)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.filter2D(values, -1, window)[5:-5, 5:-5]

    found = _similarity(*map(mean, (one, other, one * one, other * other, one * other)))
    return _psnr(one, other), float(found.mean())


def torch_conv(first: np.ndarray, second: np.ndarray) -> Values:
    """pyiqa's way: five convolutions in float64."""
    distance = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
    kernel = torch.exp(-(distance**2) / (2 * 1.5**2))
    kernel = kernel / kernel.sum()
    window = torch.outer(kernel, kernel)[None, None]
    one, other = _luma(first), _luma(second)
    a, b = torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(values, window)

    found = _similarity(*map(mean, (a, b, a * a, b * b, a * b)))
    return _psnr(one, other), float(found.mean())


def rows(rounds: int, options: argparse.Namespace) -> list[Row]:
    """One row: milliseconds for a pair."""
    torch.set_num_threads(1)
    width, height = options.size
    first, second = _images(height, width)
    peers: dict[str, Measure] = {"scikit-image": scikit_image, "pyiqa (torch)": torch_conv}
    if installed("cv2"):
        peers["BasicSR (OpenCV)"] = opencv
    expected = ours(first, second)
    for name, measure in peers.items():
        difference = np.abs(np.subtract(measure(first, second), expected)).max()
        if difference > TOLERANCE:
            raise RuntimeError(f"{name} and ours differ by {difference}")
    found = compare(
        f"PSNR-Y and SSIM-Y, {width} x {height} px",
        "ms",
        partial(_repeated, ours, first, second),
        {name: partial(_repeated, measure, first, second) for name, measure in peers.items()},
        limit=partial(_gemm_seconds, height * width * MAPS * 2 * TAPS),
        rounds=rounds,
    )
    return [_in_ms(found)]


def _images(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image with streaks, and without."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    clean = 120 + 60 * np.sin(rows / 31)[..., None] + rng.normal(0, 8, (height, width, 3))
    rainy = clean + 70.0 * ((rows + 3 * columns) % 23 < 2)[..., None]
    first, second = (np.clip(np.rint(it), 0, 255).astype(np.uint8) for it in (rainy, clean))
    return first, second


def _repeated(measure: Measure, first: np.ndarray, second: np.ndarray) -> float:
    """Seconds of the processor: every contestant has one thread, and other programs may run."""
    start = time.process_time()
    for _ in range(CALLS):
        measure(first, second)
    return time.process_time() - start


def _gemm_seconds(multiply_adds: int) -> float:
    a = np.random.default_rng(0).random((GEMM_SIDE, GEMM_SIDE))
    start = time.process_time()
    a @ a
    return (time.process_time() - start) * CALLS * multiply_adds / GEMM_SIDE**3


def _luma(image: np.ndarray) -> np.ndarray:
    return 16.0 + image.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255.0)


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one - other) ** 2)))


def _similarity(mu1, mu2, square1, square2, product):  # type: ignore[no-untyped-def]
    """Equation 13 of Wang et al. 2004, from five local means; of arrays or of tensors."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    squares, means = mu1 * mu1 + mu2 * mu2, mu1 * mu2
    contrast = (2 * (product - means) + c2) / (square1 + square2 - squares + c2)
    return (2 * means + c1) / (squares + c1) * contrast


def _in_ms(found: Row) -> Row:
    factor = 1000 / CALLS
    return replace(
        found,
        ours=factor * found.ours,
        peers={name: factor * seconds for name, seconds in found.peers.items()},
        limit=None if found.limit is None else factor * found.limit,
    )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--size", type=int, nargs=2, default=(512, 384), metavar=("WIDTH", "HEIGHT")
    )
    return parser


if __name__ == "__main__":
    main(rows, _options())
