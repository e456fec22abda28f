"""Conversions by rule: 16 bits, profiles, orientation, alpha, CMYK; and the way back."""

import io
import sys

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from derain.data.images.colour import is_srgb, same_colours
from derain.data.images.convert import read_odd
from derain.data.images.decode import inspect
from derain.data.images.headers import read_header
from derain.errors import DataError
from tests.data.images.odd_images import (
    DEEP,
    NOISE,
    PIXELS,
    VARIANTS,
    chunk,
    deep_tiff,
    encoded,
    exif,
    jpeg_with,
    profile,
)

RGBA = np.dstack((PIXELS, np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)))


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_a_plain_image_is_not_changed() -> None:
    image = read_odd(encoded(NOISE), "x")
    assert image.changes() == ()
    np.testing.assert_array_equal(image.plain(), PIXELS)
    np.testing.assert_array_equal(decoded(image.encode_result(image.srgb)), PIXELS)


@pytest.mark.parametrize("data", [deep_tiff(), imagecodecs.png_encode(DEEP)])
def test_16_bits_are_rounded_for_8_and_kept_in_the_result(data: bytes) -> None:
    image = read_odd(data, "x")
    np.testing.assert_array_equal(image.plain(), np.rint(DEEP / 65535 * 255))
    assert image.changes() == ("16 bits rounded to 8",)
    np.testing.assert_array_equal(image.srgb, DEEP)
    np.testing.assert_array_equal(imagecodecs.png_decode(image.encode_result(image.srgb)), DEEP)


def test_refused_images_do_not_wear_the_process_out() -> None:
    """imagecodecs gave a reference to None away with each, and Python 3.11 ended without any."""
    data = imagecodecs.png_encode(DEEP)
    broken = data[:33] + chunk(b"IDAT", data[41:-40]) + chunk(b"IEND", b"")
    before = sys.getrefcount(None)
    for _ in range(1000):
        with pytest.raises(DataError, match="not a readable image"):
            read_odd(broken, "x")
    assert sys.getrefcount(None) > before - 500


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_every_orientation_is_applied(kind: str, turn: int) -> None:
    if kind == "JPEG":
        data = jpeg_with((0xE1, b"Exif\0\0" + exif(turn)))
    else:
        data = encoded(NOISE, "TIFF", tiffinfo={274: turn})
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    image = read_odd(data, "x")
    np.testing.assert_array_equal(image.plain(), expected)
    assert image.changes() == ("turned upright",)


def test_a_wide_profile_is_converted_to_srgb_and_back() -> None:
    data = encoded(NOISE, icc_profile=profile("Display P3"))
    image = read_odd(data, "x")
    assert image.changes() == ("Display P3 to sRGB",)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile("Display P3")))
    expected = ImageCms.profileToProfile(
        NOISE, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    difference = np.abs(image.plain().astype(int) - np.asarray(expected))
    assert difference.max() <= 3  # black point compensation
    assert np.abs(image.plain().astype(int) - PIXELS).mean() > 3
    given_back = image.encode_result(image.srgb)
    np.testing.assert_array_equal(decoded(given_back), PIXELS)  # also colours outside sRGB
    assert read_header(given_back, "x").profile == profile("Display P3")


def test_a_change_to_a_wide_image_is_carried_over() -> None:
    image = read_odd(encoded(NOISE, icc_profile=profile("Display P3")), "x")
    darker = image.srgb // 2
    again = read_odd(image.encode_result(darker), "x").srgb
    inside = np.all((image.srgb > 0) & (image.srgb < 255), axis=2)  # the others are outside sRGB
    assert np.abs(again.astype(int) - darker)[inside].mean() < 2


def test_profiles_are_compared_by_colours_not_by_bytes() -> None:
    plain = inspect(encoded(NOISE), "x")
    built_in = inspect(
        encoded(
            NOISE, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        ),
        "x",
    )
    wide = inspect(encoded(NOISE, icc_profile=profile("Display P3")), "x")
    broken = inspect(encoded(NOISE, icc_profile=b"no profile"), "x")
    assert is_srgb(plain)
    assert is_srgb(built_in)
    assert is_srgb(broken)
    assert not is_srgb(wide)
    assert same_colours(plain, built_in)
    assert same_colours(wide, wide)
    assert not same_colours(plain, wide)
    adobe = inspect(encoded(NOISE, icc_profile=profile("Adobe RGB")), "x")
    assert not same_colours(adobe, wide)


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(RGBA)),
        encoded(Image.fromarray(RGBA), "WEBP", lossless=True, exact=True),
        encoded(Image.fromarray(RGBA), "TIFF"),
    ],
)
def test_transparency_is_flattened_on_white_and_given_back(data: bytes) -> None:
    image = read_odd(data, "x")
    share = RGBA[..., 3:] / 255
    np.testing.assert_allclose(image.plain(), PIXELS * share + 255 * (1 - share), atol=0.51)
    assert image.changes() == ("transparency flattened on white",)
    np.testing.assert_array_equal(decoded(image.encode_result(image.srgb)), RGBA)


def test_a_transparent_colour_and_a_transparent_palette_are_read() -> None:
    key = tuple(int(level) for level in PIXELS[0, 0])
    image = read_odd(encoded(NOISE, transparency=key), "x")
    assert image.plain()[0, 0].tolist() == [255, 255, 255]
    palette = NOISE.quantize(16)
    image = read_odd(encoded(palette, transparency=3), "x")
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[np.asarray(palette) == 3] = 255
    np.testing.assert_array_equal(image.plain(), expected)


def test_deep_alpha_is_given_back() -> None:
    deep = np.dstack((DEEP, DEEP[..., 0]))
    image = read_odd(imagecodecs.png_encode(deep), "x")
    np.testing.assert_array_equal(imagecodecs.png_decode(image.encode_result(image.srgb)), deep)


def test_cmyk_becomes_rgb() -> None:
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    image = read_odd(encoded(flat.convert("CMYK"), "JPEG", quality=100), "x")
    assert image.changes() == ("CMYK to RGB",)
    assert np.abs(image.plain().astype(int) - (200, 40, 90)).max() <= 3


def test_grey_stays_grey() -> None:
    image = read_odd(encoded(NOISE.convert("L")), "x")
    assert image.srgb.shape == PIXELS.shape
    result = decoded(image.encode_result(image.srgb))
    np.testing.assert_array_equal(result, np.asarray(NOISE.convert("L")))


@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_is_converted_or_refused_by_name(kind: str) -> None:
    try:
        image = read_odd(VARIANTS[kind], "odd")
    except DataError:
        with pytest.raises(DataError, match=r"^odd: "):
            read_odd(VARIANTS[kind], "odd")
        return
    assert image.plain().dtype == np.uint8
    assert read_odd(image.encode_result(image.srgb), "again").levels.dtype == image.levels.dtype


def test_lab_and_floating_point_are_refused_by_name() -> None:
    for data in (
        VARIANTS["TIFF, Lab"],
        encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
    ):
        with pytest.raises(DataError, match=r"^odd: .*are converted\.$"):
            read_odd(data, "odd")
