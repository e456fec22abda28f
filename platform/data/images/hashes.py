"""Which images show the same scene: an exact digest and a perceptual hash of each."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn

GRID_PX = 16
"""Images count from the top left in steps of this: 481 x 321 and its 480 x 320 crop are equal."""

_SIDE = 64
_FREQUENCIES = 16
BITS = _FREQUENCIES * _FREQUENCIES
"""Of a perceptual hash."""
_BLOCK = 1024
"""Images a side that are compared at once: a table of 2 MiB."""


@dataclass(frozen=True)
class ImageHash:
    """What is compared instead of an image."""

    exact: str
    """sha256 of size and pixels, cropped to GRID_PX: equal only for the very same pixels."""
    perceptual: np.ndarray
    """BITS signs of low frequencies as uint64 (BITS / 64): close for images that look alike."""


def hash_image(pixels: np.ndarray) -> ImageHash:
    """Both hashes of an image (uint8, HWC, RGB).

    The perceptual one is pHash (Zauner, 2010) with more bits: the luma of the whole image at
    64 x 64, its 16 x 16 lowest DCT coefficients, each above or below their median. It stands
    recompression, scaling and crops of some pixels, not of more, rotation or mirroring.
    """
    height, width = (max(side // GRID_PX * GRID_PX, 1) for side in pixels.shape[:2])
    cropped = np.ascontiguousarray(pixels[:height, :width])
    exact = hashlib.sha256(f"{height} {width}\n".encode() + cropped.tobytes()).hexdigest()
    luma = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    low = dctn(np.asarray(luma, np.float64), norm="ortho")[:_FREQUENCIES, :_FREQUENCIES].ravel()
    bits = low > np.median(low)
    return ImageHash(exact, np.packbits(bits).view(np.uint64))


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Bits that differ between all perceptual hashes of two sets: (left, right), uint16."""
    found = np.zeros((len(left), len(right)), np.uint16)
    for word in range(left.shape[1]):  # a word at a time keeps the memory at one table
        found += np.bitwise_count(left[:, word, None] ^ right[None, :, word])
    return found


def near(left: np.ndarray, right: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    """(left, right, bits) of all pairs whose perceptual hashes differ in at most `limit` bits."""
    found: list[tuple[int, int, int]] = []
    for top in range(0, len(left), _BLOCK):
        for first in range(0, len(right), _BLOCK):
            bits = distances(left[top : top + _BLOCK], right[first : first + _BLOCK])
            rows, columns = np.nonzero(bits <= limit)
            found += zip(
                (rows + top).tolist(), (columns + first).tolist(), bits[rows, columns].tolist(),
                strict=True,
            )  # fmt: skip
    return sorted(found)
