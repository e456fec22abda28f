"""An image in tiles that overlap, and their results blended to one image, a band of rows at a time.

In the middle third of an overlap one tile fades into the next, so that there is no seam; what is
nearer to a tile's own edge is not used. So a network whose output depends on no more pixels around
than a third of the overlap gives the image that it gives as a whole, to rounding.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32, Shaped

Levels = Float32[np.ndarray, "height width 3"]


def spans(side: int, tile_px: int, overlap_px: int, stride: int) -> list[tuple[int, int]]:
    """Where the tiles of a side begin and end.

    They begin at multiples of the network's stride, as its own grid does, and the last one ends at
    the edge of the image, so that it is padded there as the whole image is. Neighbours share at
    least `overlap_px`.
    """
    if side <= tile_px:
        return [(0, side)]
    step = max(stride, (tile_px - overlap_px) // stride * stride)
    last = math.ceil((side - tile_px) / stride) * stride
    return [*((begin, begin + tile_px) for begin in range(0, last, step)), (last, side)]


def shares(
    side: int, tile_px: int, overlap_px: int, stride: int
) -> list[Float32[np.ndarray, "tile"]]:
    """For each tile of a side the share of its pixels in the result; at each pixel they add up to
    one."""
    tiles, unused = spans(side, tile_px, overlap_px, stride), overlap_px // 3
    weights, total = [], np.zeros(side)
    for begin, end in tiles:
        from_edge = (np.arange(end - begin) + 0.5 - unused) / max(1, overlap_px - 2 * unused)
        rising = np.ones(end - begin) if begin == 0 else np.clip(from_edge, 0, 1)
        falling = np.ones(end - begin) if end == side else np.clip(from_edge, 0, 1)[::-1]
        weights.append(np.minimum(rising, falling))
        total[begin:end] += weights[-1]
    return [
        (weight / total[begin:end]).astype(np.float32)
        for (begin, end), weight in zip(tiles, weights, strict=True)
    ]


def bands(
    image: Shaped[np.ndarray, "height width 3"],
    derain: Callable[[np.ndarray], Levels],
    tile_px: int,
    overlap_px: int,
    stride: int,
) -> Iterator[tuple[int, Levels]]:
    """The derained image as bands of rows from the top, each with the number of its first row.

    `derain` gets one tile at a time: (height, width, 3), sides of at most `tile_px`. Besides the
    image one row of tiles is in memory.
    """
    height, width = image.shape[:2]
    tops, lefts = (spans(side, tile_px, overlap_px, stride) for side in (height, width))
    rows, columns = (shares(side, tile_px, overlap_px, stride) for side in (height, width))
    band = np.zeros((min(height, tile_px), width, 3), np.float32)
    following = [*(top for top, _ in tops[1:]), height]
    for (top, bottom), row, done_to in zip(tops, rows, following, strict=True):
        for (left, right), column in zip(lefts, columns, strict=True):
            share = row[:, None, None] * column[None, :, None]
            band[: bottom - top, left:right] += derain(image[top:bottom, left:right]) * share
        done = done_to - top
        yield top, band[:done].copy()
        band[: len(band) - done] = band[done:]
        band[len(band) - done :] = 0
