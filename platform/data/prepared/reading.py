"""Read a pair from its source files, as it is written to a tar: whole, and of one size.

The texts of the errors become the reasons of quarantined images in the manifest: other words give
a prepared dataset another identity.
"""

from dataclasses import dataclass
from pathlib import Path

from derain.data.images import headers
from derain.data.images.decode import decode_image, encode_png, ending
from derain.data.sources.pairs import Pair
from derain.errors import DataError
from derain.storage import files


@dataclass(frozen=True)
class ImageFile:
    """An encoded image, as it is written to a tar."""

    ending: str
    data: bytes
    size: tuple[int, int]
    """Width and height."""


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
    pair: Pair, source: Path, *, decode: bool = False, clean: ImageFile | None = None
) -> PairImages:
    """Read a pair from its source.

    Bytes pass through unchanged; a side-by-side image becomes two PNGs. With `decode` the images
    are decoded too. `clean` is the clean image if it was read before. Raises DataError for an
    image that cannot be read and for a pair of two sizes.
    """
    if pair.clean_half:
        images = _read_halves(pair, source)
    else:
        rain = _read_image(pair.rain, source, decode)
        if clean is None and pair.clean:
            clean = _read_image(pair.clean, source, decode)
        images = PairImages(pair, rain, clean)
    if images.clean and images.clean.size != images.rain.size:
        (width, height), (clean_width, clean_height) = images.rain.size, images.clean.size
        raise DataError(
            f"{pair.rain}: {width} x {height}, but {pair.clean}: "
            f"{clean_width} x {clean_height}; a pair has one size."
        )
    return images


def _read_image(name: str, source: Path, decode: bool) -> ImageFile:
    data = _read_bytes(source, name)
    size = headers.inspect(data, name)
    if decode:
        decode_image(data, name)
    return ImageFile(ending(name), data, size)


def _read_halves(pair: Pair, source: Path) -> PairImages:
    """The left and the right half of one image, encoded without loss."""
    pixels = decode_image(_read_bytes(source, pair.rain), pair.rain)
    height, width = pixels.shape[:2]
    if width % 2:
        raise DataError(f"{pair.rain}: {width} pixels wide, which are not two equal halves.")
    left, right = (
        ImageFile(".png", encode_png(half), (width // 2, height))
        for half in (pixels[:, : width // 2], pixels[:, width // 2 :])
    )
    if pair.clean_half == "left":
        return PairImages(pair, rain=right, clean=left)
    return PairImages(pair, rain=left, clean=right)


def _read_bytes(source: Path, name: str) -> bytes:
    try:
        return files.read_bytes(source, name)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from None
