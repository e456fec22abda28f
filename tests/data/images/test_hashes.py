"""Hashes: an image stays near after the usual changes in rain datasets; other scenes are far."""

import io

import numpy as np
import pytest
from PIL import Image

from derain.data.images.decode import read_image
from derain.data.images.hashes import BITS, distances, hash_image, near_matches
from derain.data.images.kinds import is_image
from derain.data.synthetic.synthesis import bundled_photographs

PHOTOGRAPHS = [
    read_image(path) for path in sorted(bundled_photographs().iterdir()) if is_image(path)
]
SAME_SCENE, OTHER_SCENE = 24, 80
"""Bits; the limit of `leaks` is 40."""


def bits(left: np.ndarray, right: np.ndarray) -> int:
    hashes = [hash_image(pixels).perceptual[None] for pixels in (left, right)]
    return int(distances(*hashes)[0, 0])


def recompressed(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def halved(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((image.width // 2, image.height // 2)))


@pytest.mark.parametrize("change", [recompressed, halved, lambda pixels: pixels[:-1, :-1]])
def test_a_changed_image_is_near(change) -> None:
    assert max(bits(pixels, change(pixels)) for pixels in PHOTOGRAPHS) <= SAME_SCENE


def test_other_scenes_are_far() -> None:
    table = np.stack([hash_image(pixels).perceptual for pixels in PHOTOGRAPHS])
    apart = distances(table, table)
    assert np.all(np.diag(apart) == 0)
    assert apart[~np.eye(len(table), dtype=bool)].min() >= OTHER_SCENE


def test_the_exact_digest_withstands_the_crop_of_rain13k_and_nothing_else() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (321, 481, 3), dtype=np.uint8)
    cropped = whole[:320, :480]
    assert hash_image(whole).exact == hash_image(cropped).exact
    for other in (whole[1:], whole[:304], cropped.reshape(480, 320, 3)):
        assert hash_image(other).exact != hash_image(whole).exact
    changed = cropped.copy()
    changed[0, 0, 0] ^= 1
    assert hash_image(changed).exact != hash_image(whole).exact


def test_images_smaller_than_the_grid_have_hashes() -> None:
    small = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    assert len(hash_image(small).perceptual) * 64 == BITS


def test_near_matches_equal_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    left = rng.integers(0, 2**63, (1100, 4)).astype(np.uint64)
    right = left[rng.permutation(1100)[:1050]] ^ rng.integers(0, 4, (1050, 4)).astype(np.uint64)
    expected = [
        (row, column, int(apart))
        for row in range(0, len(left))
        for column, apart in enumerate(np.bitwise_count(left[row] ^ right).sum(axis=1))
        if apart <= 5
    ]
    assert near_matches(left, right, 5) == expected
    assert len(expected) > 200
