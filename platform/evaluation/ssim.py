"""SSIM of Wang et al. 2004, over whole windows, in float64.

Both passes of the separable window are products with small banded matrices: a product of a library
for linear algebra runs at several multiply-adds a cycle, which more than pays for the zeros in the
band. docs/measurements/metrics.md has what was tried.
"""

from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy.lib.stride_tricks import as_strided

PEAK = 255.0
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2
SIGMA_PX = 1.5

Window = Literal["gaussian", "uniform"]
LEAST_PX: dict[Window, int] = {"gaussian": 11, "uniform": 7}
"""The side of each window."""

ROWS, COLUMNS, BLOCK = 16, 512, 16
"""Size of a tile, and of the blocks of columns in it, in pixels. The four maps of a tile stay in a
second-level cache of 512 KiB, and its products are too small for OpenBLAS to start threads: the
result does not depend on their number."""

Plane = Float64[np.ndarray, "height width"]
Planes = Float64[np.ndarray, "channels height width"]


def ssim(first: Planes, second: Planes, window: Window) -> float:
    """The mean structural similarity over the whole windows of all channels.

    Values are in 0..255. `gaussian` is the paper's window: 11x11, sigma 1.5. `uniform` is
    scikit-image's default: 7x7, and variances divided by one less than the number of pixels.
    """
    return float(np.mean([_plane_ssim(a, b, window) for a, b in zip(first, second, strict=True)]))


def _plane_ssim(first: Plane, second: Plane, window: Window) -> float:
    margin = LEAST_PX[window] - 1
    height, width = (side - margin for side in first.shape)
    total = 0.0
    for left, right in pairwise([*range(0, width, COLUMNS), width]):
        tile = _Tile(right - left, window)
        for top in range(0, height, ROWS):
            area = slice(top, min(top + ROWS, height) + margin), slice(left, right + margin)
            total += tile.similarity(first[area], second[area])
    return total / (height * width)


class _Tile:
    """Sums the similarity over tiles of one width, in the same memory."""

    def __init__(self, width: int, window: Window) -> None:
        self._window, self._width, self._margin = window, width, LEAST_PX[window] - 1
        self._maps = np.empty((4, ROWS + self._margin, width + self._margin))
        self._columns = np.empty((4, ROWS, width + self._margin))
        self._means = np.empty((4, ROWS * width))
        self._scratch = np.empty((2, ROWS * width))
        count = LEAST_PX[window] ** 2
        self._c2 = 2 * C2 * ((count - 1) / count if window == "uniform" else 1.0)

    def similarity(self, first: Plane, second: Plane) -> float:
        """The sum of equation 13, in terms of the sum and the difference of the images.

        With s = a + b and d = a - b, 4 mean(a) mean(b) is mean(s)^2 - mean(d)^2, and so on: four
        filtered maps instead of five, and no products of the two images.
        """
        found = self._local_means(first, second)
        numerators = self._scratch[:, : found.shape[1]]
        means, squares = found[:2], found[2:]
        means *= means
        squares -= means  # now twice the variances
        means[0] += 2 * C1
        squares[0] += self._c2
        of_sum, of_difference = found[::2], found[1::2]
        np.subtract(of_sum, of_difference, out=numerators)
        of_sum += of_difference  # the denominators
        ratios, denominators = numerators[0], of_sum[0]
        ratios *= numerators[1]
        denominators *= of_sum[1]
        ratios /= denominators
        return float(ratios.sum())

    def _local_means(self, first: Plane, second: Plane) -> Float64[np.ndarray, "4 pixels"]:
        """Windowed means of a + b, a - b and their squares; the order of the pixels is its own."""
        rows = len(first) - self._margin
        maps, columns = self._maps[:, : len(first)], self._columns[:, :rows]
        np.add(first, second, out=maps[0])
        np.subtract(first, second, out=maps[1])
        np.multiply(maps[:2], maps[:2], out=maps[2:])
        np.matmul(_band(self._window, rows), maps, out=columns)
        means = self._means[:, : rows * self._width]
        blocks = self._width // BLOCK
        done = blocks * BLOCK
        whole = means[:, : rows * done].reshape(4, blocks, rows, BLOCK)
        np.matmul(self._blocks(columns, blocks), _upright(self._window, BLOCK), out=whole)
        if rest := self._width - done:
            last = means[:, rows * done :].reshape(4, rows, rest)
            np.matmul(columns[:, :, done:], _upright(self._window, rest), out=last)
        return means

    def _blocks(self, columns: np.ndarray, count: int) -> np.ndarray:
        """Overlapping blocks of columns, without a copy: (4, blocks, rows, BLOCK + margin)."""
        shape = (4, count, columns.shape[1], BLOCK + self._margin)
        by_map, by_row, by_column = columns.strides
        return as_strided(columns, shape, (by_map, BLOCK * by_column, by_row, by_column))


@cache
def _band(window: Window, outputs: int) -> Float64[np.ndarray, "outputs inputs"]:
    """The matrix whose product with `inputs` values is their `outputs` windowed means."""
    size = LEAST_PX[window]
    distance = np.arange(size) - size // 2
    weights = np.exp(-(distance**2) / (2 * SIGMA_PX**2)) if window == "gaussian" else np.ones(size)
    band = np.zeros((outputs, outputs + size - 1))
    for row in range(outputs):
        band[row, row : row + size] = weights / weights.sum()
    return band


@cache
def _upright(window: Window, outputs: int) -> Float64[np.ndarray, "inputs outputs"]:
    """`_band` transposed in memory too: OpenBLAS takes half the time for it."""
    return np.ascontiguousarray(_band(window, outputs).T)
