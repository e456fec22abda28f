"""Turn images as their EXIF orientation demands, and back."""

import numpy as np


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as a viewer shows them: (height, width, ...) as stored, orientation 1 to 8."""
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


def as_stored(shown: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `upright`."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return upright(shown, inverse)
