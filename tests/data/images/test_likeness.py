"""Images that are all but equal, and those that are not."""

import numpy as np

from derain.data.images.likeness import ALMOST_EQUAL_DB, almost_equal
from tests.data.images.odd_images import PIXELS


def off_by(levels: int) -> np.ndarray:
    return np.clip(PIXELS.astype(int) + levels, 0, 255).astype(np.uint8)


def test_the_limit_is_a_psnr() -> None:
    middle = np.full_like(PIXELS, 100)
    limit = 255 / 10 ** (ALMOST_EQUAL_DB / 20)  # 2.55 levels
    assert almost_equal(middle, middle + np.uint8(int(limit)))
    assert not almost_equal(middle, middle + np.uint8(int(limit) + 1))


def test_nothing_is_equal_to_an_image_that_was_not_decoded() -> None:
    assert almost_equal(PIXELS, off_by(1))
    assert not almost_equal(PIXELS, off_by(60))
    assert not almost_equal(PIXELS, None)
