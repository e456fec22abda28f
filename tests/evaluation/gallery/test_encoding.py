"""The files of a page's images: exact where they fit, and never larger than their share."""

import io

import numpy as np
import pytest
from PIL import Image

from derain.evaluation.gallery.encoding import (
    Encoded,
    encode,
    largest_of_blocks,
    palette,
    png_of_levels,
)
from derain.evaluation.gallery.images import GalleryImage


def read(file: Encoded) -> Image.Image:
    return Image.open(io.BytesIO(file.data))


@pytest.fixture(scope="module")
def image() -> GalleryImage:
    random = np.random.default_rng(0)
    rain, clean, derained = random.integers(0, 256, (3, 45, 70, 3), dtype=np.uint8)
    return GalleryImage("set", "a", rain, clean, {"net": derained})


def test_with_room_every_pixel_is_exact(image: GalleryImage) -> None:
    panels = encode(image, 10**6)
    assert panels.coding == "exact pixels"
    for name, pixels in image.images().items():
        assert np.array_equal(np.asarray(read(panels.images[name])), pixels)


@pytest.mark.parametrize("share", [10**6, 40_000])
def test_error_maps_are_of_the_true_pixels_however_the_images_are_written(
    image: GalleryImage, share: int
) -> None:
    panels = encode(image, share)
    assert (panels.images["net"].media_type == "image/jpeg") == (share < 10**6)
    assert image.clean is not None
    for name in ("rainy", "net"):
        true = np.abs(image.images()[name].astype(int) - image.clean).max(axis=2)
        assert np.array_equal(np.asarray(read(panels.errors[name])), np.minimum(true, 63))


def test_the_colour_of_an_error_tells_its_level() -> None:
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    shown = np.asarray(read(png_of_levels(levels)).convert("RGB"))
    assert np.array_equal(shown.reshape(64, 3), palette())
    assert len({tuple(colour) for colour in palette().tolist()}) == 64
    assert (np.diff(palette().astype(int) @ [2, 7, 1]) > 0).all()  # brighter with the error


@pytest.mark.parametrize("share", [40_000, 25_000, 9_000, 5_000])
def test_the_share_is_kept(image: GalleryImage, share: int) -> None:
    panels = encode(image, share)
    assert panels.size <= share
    factor = 1 if " at 1/" not in panels.coding else int(panels.coding.split()[5][2:])
    size = (-(-70 // factor), -(-45 // factor))
    files = [*panels.images.values(), *panels.errors.values()]
    assert {read(file).size for file in files} == {size}


def test_what_cannot_fit_ends_as_a_pixel(image: GalleryImage) -> None:
    assert {read(file).size for file in encode(image, 1).images.values()} == {(1, 1)}


def test_a_smaller_error_map_keeps_the_largest_error_of_each_block() -> None:
    levels = np.zeros((5, 4), np.uint8)
    levels[4, 3], levels[0, 1] = 7, 9
    assert largest_of_blocks(levels, 2).tolist() == [[9, 0], [0, 0], [0, 7]]
