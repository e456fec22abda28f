"""The images of a pair as they go into a tar: whole, and of one size."""

from dataclasses import dataclass
from pathlib import Path

from derain.data.images import headers
from derain.data.images.decode import decode_image, encode_png, ending
from derain.data.sources.pairs import Pair
from derain.errors import DataError
from derain.storage import files


@dataclass(frozen=True)
class ImageFile:
    """An image as it goes into a tar."""

    ending: str
    data: bytes
    size: tuple[int, int]
    """Width and height."""


@dataclass(frozen=True)
class Read:
    """A pair whose images are whole and of one size."""

    pair: Pair
    rain: ImageFile
    clean: ImageFile | None
    """None where there is no clean image."""


def read_pair(
    pair: Pair, source: Path, *, decode: bool = False, clean: ImageFile | None = None
) -> Read:
    """Read a pair from its source; bytes pass through, side by side images become two PNGs.

    `clean` is the clean image where it has been read already. Raises DataError for an image that
    cannot be read and for a pair of two sizes.
    """
    if pair.clean_half:
        read = _halves(pair, source)
    else:
        rain = _image(pair.rain, source, decode)
        if clean is None and pair.clean:
            clean = _image(pair.clean, source, decode)
        read = Read(pair, rain, clean)
    if read.clean and read.clean.size != read.rain.size:
        (width, height), (clean_width, clean_height) = read.rain.size, read.clean.size
        raise DataError(
            f"{pair.rain}: {width} x {height}, but {pair.clean}: "
            f"{clean_width} x {clean_height}; a pair has one size."
        )
    return read


def _image(name: str, source: Path, decode: bool) -> ImageFile:
    data = _bytes(source, name)
    size = headers.inspect(data, name)
    if decode:
        decode_image(data, name)
    return ImageFile(ending(name), data, size)


def _halves(pair: Pair, source: Path) -> Read:
    """Left and right half of one image, without loss."""
    pixels = decode_image(_bytes(source, pair.rain), pair.rain)
    height, width = pixels.shape[:2]
    if width % 2:
        raise DataError(f"{pair.rain}: {width} pixels wide, which are not two equal halves.")
    left, right = (
        ImageFile(".png", encode_png(half), (width // 2, height))
        for half in (pixels[:, : width // 2], pixels[:, width // 2 :])
    )
    return Read(pair, right, left) if pair.clean_half == "left" else Read(pair, left, right)


def _bytes(source: Path, name: str) -> bytes:
    try:
        return files.read_bytes(source, name)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from None
