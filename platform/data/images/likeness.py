"""Whether two images are all but equal."""

import numpy as np

ALMOST_EQUAL_DB = 40.0
"""PSNR from which on two images are all but equal: no rain, or a photograph beside itself."""


def almost_equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two images (uint8, of one shape) are all but equal; False if one is None."""
    if one is None or other is None:
        return False
    error = np.square(one.astype(np.int32) - other).mean()
    return bool(error <= 255**2 / 10 ** (ALMOST_EQUAL_DB / 10))
