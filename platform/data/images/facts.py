"""What the header of an image file says, and which images are plain: usable as they are."""

from dataclasses import dataclass

from derain.data.images.metadata import UPRIGHT
from derain.errors import DataError

Bytes = bytes | bytearray | memoryview

MAX_PIXELS = 128_000_000
"""More than 12,000 x 10,000: what the largest cameras take, less than what exhausts a worker's
memory."""
MAX_SIDE = 1_000_000

_PLAIN = frozenset({"RGB", "grey", "palette"})


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its image."""

    format: str
    """PNG, JPEG, BMP, WEBP or TIFF, by content."""
    width: int
    """In pixels, as stored: before `orientation` is applied."""
    height: int
    colour: str
    """Such as RGB, grey, palette, CMYK."""
    bits: int
    """Per channel."""
    alpha: bool = False
    """True for any kind of transparency."""
    orientation: int = UPRIGHT
    """1 to 8, as EXIF numbers them."""
    profile: bytes | None = None
    """The ICC profile, unparsed."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.width, self.height

    def oddities(self) -> list[str]:
        """Why this image is not plain; empty for an upright one of 8-bit RGB or grey."""
        found = []
        if self.alpha:
            found.append("transparency")
        if self.bits > 8:
            found.append(f"{self.bits} bits per channel")
        if self.colour.removesuffix(" with alpha") not in _PLAIN:
            found.append(self.colour)
        if self.orientation != UPRIGHT:
            found.append("a rotation by an EXIF or XMP tag")
        return found


def check_plain(header: Header, name: str) -> None:
    """Raise DataError for an image whose pixels would have to be converted."""
    if found := header.oddities():
        raise DataError(
            f"{name}: has {' and '.join(found)}; expected an upright image of 8-bit RGB or grey "
            "without alpha. `derainctl prepare --convert` converts it."
        )


class ImageSizeError(DataError):
    """An image has no pixels, or more than MAX_PIXELS, or a side of more than MAX_SIDE."""


def check_size(width: int, height: int, name: str) -> None:
    """Raise ImageSizeError for an image without pixels, with more than MAX_PIXELS, or too long."""
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageSizeError(
            f"{name}: {width} x {height} pixels; from 1 to {MAX_PIXELS:,} are read."
        )
