"""Find images of the same scene: an exact digest and a perceptual hash of each image."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn

GRID_PX = 16
"""Exact digests cover sizes rounded down to this: 481 x 321 equals its 480 x 320 crop."""

_SIDE = 64
_FREQUENCIES = 16
BITS = _FREQUENCIES * _FREQUENCIES
"""Length of a perceptual hash."""
_BLOCK = 1024
"""Images per side that are compared at once: a table of 2 MiB."""


@dataclass(frozen=True)
class ImageHash:
    """The hashes by which images are compared."""

    exact: str
    """SHA-256 of size and pixels, cropped to GRID_PX: equal only for identical pixels."""
    perceptual: np.ndarray
    """BITS signs of low frequencies as uint64, (BITS / 64,): few bits differ for similar images."""


def hash_image(pixels: np.ndarray) -> ImageHash:
    """Both hashes of an image (uint8, HWC, RGB).

    The perceptual one is pHash (Zauner, 2010) with more bits: the luma of the whole image at
    64 x 64, its 16 x 16 lowest DCT coefficients, each above or below their median. It withstands
    recompression, scaling and crops of a few pixels, but not larger crops, rotation or mirroring.
    """
    height, width = (max(side // GRID_PX * GRID_PX, 1) for side in pixels.shape[:2])
    cropped = np.ascontiguousarray(pixels[:height, :width])
    exact = hashlib.sha256(f"{height} {width}\n".encode() + cropped.tobytes()).hexdigest()
    luma = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    low = dctn(np.asarray(luma, np.float64), norm="ortho")[:_FREQUENCIES, :_FREQUENCIES].ravel()
    bits = low > np.median(low)
    return ImageHash(exact, np.packbits(bits).view(np.uint64))


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Number of different bits for all pairs of perceptual hashes: uint16, (left, right)."""
    bits = np.zeros((len(left), len(right)), np.uint16)
    for word in range(left.shape[1]):  # word by word, so that only one table is in memory
        bits += np.bitwise_count(left[:, word, None] ^ right[None, :, word])
    return bits


def near_matches(left: np.ndarray, right: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    """(left, right, bits) of all pairs of hashes that differ in at most `limit` bits, sorted."""
    matches: list[tuple[int, int, int]] = []
    for top in range(0, len(left), _BLOCK):
        for first in range(0, len(right), _BLOCK):
            bits = distances(left[top : top + _BLOCK], right[first : first + _BLOCK])
            rows, columns = np.nonzero(bits <= limit)
            matches += zip(
                (rows + top).tolist(), (columns + first).tolist(), bits[rows, columns].tolist(),
                strict=True,
            )  # fmt: skip
    return sorted(matches)
