"""Inspecting and decoding agree on every kind of image."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from derain.data.images.convert import read_odd
from derain.data.images.decode import decode_image, inspect
from derain.data.images.kinds import ending, is_image
from derain.data.images.png import SIGNATURE
from derain.errors import DataError
from tests.data.images.odd_images import (
    BIG,
    DEEP,
    NOISE,
    PIXELS,
    VARIANTS,
    camera_jpeg,
    chunk,
    encoded,
    exif,
    jpeg_with,
    png_with,
)


def is_accepted(read: object, data: bytes) -> bool:
    try:
        read(data, "x")  # type: ignore[operator]
    except DataError:
        return False
    return True


@pytest.mark.parametrize("kind", VARIANTS)
def test_what_is_accepted_can_be_decoded_and_what_is_refused_cannot(kind: str) -> None:
    data = VARIANTS[kind]
    assert is_accepted(inspect, data) == is_accepted(decode_image, data)


@pytest.mark.parametrize("kind", [name for name in VARIANTS if name.startswith("PNG with")])
def test_metadata_of_a_png_is_never_a_reason_to_refuse_it(kind: str) -> None:
    np.testing.assert_array_equal(decode_image(VARIANTS[kind], kind), PIXELS)


KINDS = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs", b"gAMA", b"sRGB", b"cHRM", b"fcTL"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=60)), max_size=4))
def test_any_metadata_is_read_alike_in_a_png(metadata: list[tuple[bytes, bytes]]) -> None:
    data = png_with(*(chunk(kind, body) for kind, body in metadata))
    assert is_accepted(inspect, data) == is_accepted(decode_image, data)


ROWS = b"".join(bytes([n % 5]) + PIXELS[n].tobytes() for n in range(len(PIXELS)))
"""The rows of a PNG with each of the five filters, which give other pixels than PIXELS."""


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, 9),
    st.integers(0, len(ROWS) + 9),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=2),
)
def test_a_png_has_the_pixels_that_pillow_finds_or_its_message(
    level: int, length: int, changes: list[tuple[int, int]]
) -> None:
    """Of a stream that was cut, is too long or damaged, though the CRCs of its chunks are right."""
    stream = bytearray(zlib.compress(ROWS.ljust(length, b"\0")[:length], level))
    for at, value in changes:
        stream[at % len(stream)] = value
    data = with_stream(bytes(stream))
    expected = of_pillow(data)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=f"{re.escape(expected)}|pixels: "):
            decode_image(data, "x")
    elif has_all_rows(stream):
        np.testing.assert_array_equal(decode_image(data, "x"), expected)
    else:  # Pillow makes the rest black
        assert not is_accepted(decode_image, data)


def has_all_rows(stream: bytes | bytearray) -> bool:
    """Whether a stream of pixels, which Pillow has read, has a byte for every pixel."""
    whole = zlib.decompressobj()
    try:
        return len(whole.decompress(stream, len(ROWS))) == len(ROWS)
    except zlib.error:
        return False


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_a_png_that_lacks_its_last_row_is_refused(mode: str) -> None:
    """Its stream is whole, and its chunks are: Pillow reads it, and makes the row black."""
    image = Image.fromarray(DEEP[..., 0]) if mode == "I;16" else NOISE.convert(mode)
    whole = encoded(image)
    assert is_accepted(read_odd, whole)
    bits = {"1": 1, "I;16": 16}.get(mode, 8 * len(image.getbands()))
    rows = bytes((1 + -(-image.width * bits // 8)) * (image.height - 1))
    parts = re.split(rb"(?=....IDAT)", whole, flags=re.DOTALL)
    cut = parts[0] + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    assert is_accepted(inspect, whole) == is_accepted(inspect, cut)
    with pytest.raises(DataError, match=r"x: not a readable image \("):
        read_odd(cut, "x")


def of_pillow(data: bytes) -> np.ndarray | str:
    """Its pixels, or why it refuses a PNG."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        return str(error)


def with_stream(stream: bytes) -> bytes:
    """A PNG of the size of PIXELS with any stream of pixels."""
    header = encoded(NOISE)[: 8 + 25]
    return header + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


PREFIXES = [
    b"",
    b"Exif\0\0",
    b"Exif\0\0" + exif(1),
    b"JFIF\0",
    b"Adobe",
    b"ICC_PROFILE\0\1\1",
    b"MPF\0",
]
MARKERS = st.sampled_from([*range(0xE0, 0xF0), 0xFE])


@settings(deadline=None)
@given(st.lists(st.tuples(MARKERS, st.sampled_from(PREFIXES), st.binary(max_size=40)), max_size=4))
def test_any_metadata_is_read_alike_in_a_jpeg(metadata: list[tuple[int, bytes, bytes]]) -> None:
    data = jpeg_with(*((marker, prefix + body) for marker, prefix, body in metadata))
    assert is_accepted(inspect, data) == is_accepted(decode_image, data)


@pytest.mark.parametrize("value", [0, 1, 9, 255])
def test_an_orientation_that_turns_nothing_is_upright(value: int) -> None:
    plain = encoded(NOISE, "JPEG", quality=90)
    odd = jpeg_with((0xE1, b"Exif\0\0" + exif(value)), image=plain)
    np.testing.assert_array_equal(decode_image(odd, "x.jpg"), decode_image(plain, "x.jpg"))


def test_a_cameras_jpeg_with_a_preview_is_its_first_image() -> None:
    data = camera_jpeg()
    assert inspect(data, "x.jpg").size == NOISE.size
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
        np.testing.assert_array_equal(decode_image(data, "x.jpg"), np.asarray(image))


@pytest.mark.parametrize("kind", ["TIFF of 16 bits", "PNG of 16 bits"])
def test_16_bits_are_refused_by_name(kind: str) -> None:
    with pytest.raises(DataError, match=r"^odd: has 16 bits per channel; .*--convert"):
        inspect(VARIANTS[kind], "odd")


def test_a_profile_of_2_mib_costs_no_pixel() -> None:
    assert len(BIG) > 2**20
    data = VARIANTS["PNG with a profile of 2 MiB"]
    np.testing.assert_array_equal(decode_image(data, "x.png"), PIXELS)


def test_every_ending_of_a_jpeg_is_one() -> None:
    for name in ("a.jpg", "a.JPEG", "a.jpe", "a.JFIF"):
        assert is_image(name)
        assert ending(name) == ".jpg"
    assert not is_image("a.heic")


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (9, 2), (11, 11)])
def test_an_interlaced_png_needs_the_pixels_of_all_passes(size: tuple[int, int]) -> None:
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in PASSES]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))

    def png(stream: bytes) -> bytes:
        return SIGNATURE + header + chunk(b"IDAT", zlib.compress(stream)) + chunk(b"IEND")

    np.testing.assert_array_equal(decode_image(png(rows), "x")[..., 0], pixels)
    assert not is_accepted(decode_image, png(rows[:-1]))


PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)),
    (0, 1, 1, 2),
)
"""Of Adam7: the first column and row, and the distances of the next."""
