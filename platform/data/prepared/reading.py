"""Read a pair from its source files, as it is written to a tar: whole, and of one size.

The texts of the errors and remarks become reasons and notes in the manifest: other words give a
prepared dataset another identity.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derain.data.images import colour
from derain.data.images.convert import read_odd
from derain.data.images.decode import decode_image, encode_png, inspect
from derain.data.images.facts import Header
from derain.data.images.headers import read_header
from derain.data.images.kinds import ending
from derain.data.images.likeness import almost_equal
from derain.data.sources.pairs import Pair
from derain.errors import DataError
from derain.storage import files


@dataclass(frozen=True, slots=True)
class Reading:
    """How source images are checked and changed."""

    decode: bool = False
    """Decode every image; otherwise headers and checksums are inspected."""
    convert: bool = False
    """Make a PNG of 8-bit sRGB of each image that is not plain, by the rules of `images.convert`;
    otherwise such an image is refused."""


INSPECT = Reading()


@dataclass(frozen=True)
class ImageFile:
    """An encoded image, as it is written to a tar."""

    ending: str
    data: bytes
    size: tuple[int, int]
    """Width and height."""
    header: Header
    """What it says about its colours."""
    pixels: np.ndarray | None = None
    """uint8, HWC, RGB, if it was decoded."""
    changes: tuple[str, ...] = ()
    """What was converted, see `convert.OddImage.changes`."""


@dataclass(frozen=True)
class PairImages:
    """The encoded images of a pair; they are whole and of one size."""

    pair: Pair
    rain: ImageFile
    clean: ImageFile | None
    """None without a clean image."""
    remarks: tuple[str, ...] = ()
    """What is unusual about the pair, although it can be used: kinds of `remarks.Remarks`."""


def read_pair(
    pair: Pair,
    source: Path,
    reading: Reading = INSPECT,
    *,
    clean: ImageFile | None = None,
) -> PairImages:
    """Read a pair from its source.

    Bytes pass through unchanged, apart from what `reading` converts; a side-by-side image becomes
    two PNGs. `clean` is the clean image if it was read before.

    Raises DataError for an image that cannot be read, and for a pair of two sizes or two colour
    spaces.
    """
    if pair.clean_half:
        rain, clean = _read_halves(pair, source, reading.convert)
    else:
        rain = _read_image(pair.rain, source, reading)
        if clean is None and pair.clean:
            clean = _read_image(pair.clean, source, reading)
    if clean:
        _require_alike(pair, rain, clean)
    return PairImages(pair, rain, clean, tuple(_remarks(rain, clean)))


def _require_alike(pair: Pair, rain: ImageFile, clean: ImageFile) -> None:
    if clean.size != rain.size:
        (width, height), (clean_width, clean_height) = rain.size, clean.size
        raise DataError(
            f"{pair.rain}: {width} x {height}, but {pair.clean}: "
            f"{clean_width} x {clean_height}; a pair has one size."
        )
    if not colour.same_colours(rain.header, clean.header):
        raise DataError(
            f"{pair.rain}: its colours are {colour.name_of(rain.header)}, those of {pair.clean} "
            f"{colour.name_of(clean.header)}; a pair has one colour space. `derainctl prepare "
            "--convert` converts both to sRGB."
        )


def _remarks(rain: ImageFile, clean: ImageFile | None) -> Iterator[str]:
    if not colour.is_srgb(rain.header):
        name = colour.name_of(rain.header)
        yield f"Pairs in {name}, whose levels are kept as if they were sRGB (see --convert)"
    changes = dict.fromkeys((*rain.changes, *(clean.changes if clean else ())))
    for change in changes:
        yield f"Pairs that were converted, {change}"
    if clean and almost_equal(rain.pixels, clean.pixels) and rain.data != clean.data:
        yield "Pairs whose two images are all but equal (40 dB or more)"


def _read_image(name: str, source: Path, reading: Reading) -> ImageFile:
    data = _read_bytes(source, name)
    if reading.convert:
        header = read_header(data, name)
        if header.oddities() or not colour.is_srgb(header):
            odd = read_odd(data, name)
            return _png(odd.plain(), odd.changes())
    header = inspect(data, name)
    pixels = decode_image(data, name) if reading.decode else None
    return ImageFile(ending(name), data, header.size, header, pixels)


def _png(
    pixels: np.ndarray, changes: tuple[str, ...] = (), profile: bytes | None = None
) -> ImageFile:
    height, width = pixels.shape[:2]
    header = Header("PNG", width, height, "RGB", 8, profile=profile)
    return ImageFile(".png", encode_png(pixels), header.size, header, pixels, changes)


def _read_halves(pair: Pair, source: Path, convert: bool) -> tuple[ImageFile, ImageFile | None]:
    """The rainy and the clean half of one image, encoded without loss; None if both are rainy."""
    data = _read_bytes(source, pair.rain)
    if convert:
        odd = read_odd(data, pair.rain)
        pixels, changes, profile = odd.plain(), odd.changes(), None
    else:
        pixels, changes = decode_image(data, pair.rain), ()
        profile = read_header(data, pair.rain).profile
    width = pixels.shape[1]
    if width % 2:
        raise DataError(f"{pair.rain}: {width} pixels wide, which are not two equal halves.")
    left, right = (
        _png(np.ascontiguousarray(half), changes, profile)
        for half in (pixels[:, : width // 2], pixels[:, width // 2 :])
    )
    if pair.clean_half == "none":
        return left, None
    return (right, left) if pair.clean_half == "left" else (left, right)


def _read_bytes(source: Path, name: str) -> bytes:
    try:
        return files.read_bytes(source, name)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from None
