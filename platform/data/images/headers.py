"""Read the header of an image file of any supported format, and check that the file is complete.

PNG and JPEG are checked without decoding, see `png` and `jpeg`. Files of other formats are rare in
rain datasets: they are opened with Pillow here, and decoded where completeness matters.

The texts of the errors become the reasons of quarantined images in the manifest: other words give
a prepared dataset another identity.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from derain.data.images import jpeg, png
from derain.data.images.facts import Bytes, Header, check_size
from derain.data.images.metadata import UPRIGHT, exif_orientation
from derain.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
"""Accepted formats of the content, whatever the name: Pillow would try 40, and run Ghostscript."""

# Pillow warns of images that it takes for attacks; MAX_PIXELS is checked before any is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_OTHERS = ("BMP", "WEBP", "TIFF")
_COLOURS = {
    "1": "grey",
    "L": "grey",
    "LA": "grey with alpha",
    "I;16": "grey",
    "I;16B": "grey",
    "P": "palette",
    "PA": "palette with alpha",
    "RGBA": "RGB with alpha",
    "RGBX": "RGB",
    "F": "floating point",
    "I": "32-bit grey",
}
_ORIENTATION, _BITS = 0x0112, 258


def read_header(data: Bytes, name: str) -> Header:
    """What a file says about its image.

    Raises DataError that names the image for a file that is damaged, incomplete (PNG, JPEG),
    animated or not an image, and for an image of more than MAX_PIXELS.
    """
    head = bytes(data[:8])
    if head == png.SIGNATURE:
        return png.read_header(data, name)
    if head[:2] == jpeg.SIGNATURE:
        return jpeg.read_header(data, name)
    with opened(data, name) as image:
        return _of_pillow(image, name)


@contextmanager
def opened(data: Bytes, name: str, formats: tuple[str, ...] = _OTHERS) -> Iterator[Image.Image]:
    """An image file that Pillow has opened, and whose errors name the image."""
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            yield image
    except DataError:
        raise
    except UnidentifiedImageError:  # Pillow's text contains an address, which differs each time
        raise DataError(f"{name}: not a readable image (no {', '.join(FORMATS)}).") from None
    except Exception as error:  # Pillow raises many types for damaged files
        raise DataError(f"{name}: not a readable image ({error}).") from None


def _of_pillow(image: Image.Image, name: str) -> Header:
    """The header of a BMP, WebP or TIFF."""
    check_size(*image.size, name)
    if getattr(image, "n_frames", 1) > 1:
        what = "several pages" if image.format == "TIFF" else "an animation"
        raise DataError(f"{name}: {what}; expected one image.")
    orientation = _orientation(image)
    width, height = image.size
    if image.format == "TIFF" and orientation >= 5:
        width, height = height, width  # Pillow states the size of the upright image
    return Header(
        str(image.format),
        width,
        height,
        _COLOURS.get(image.mode, image.mode),
        _bits(image),
        alpha="transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "RGBa", "La"),
        orientation=orientation,
        profile=image.info.get("icc_profile"),
    )


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(_ORIENTATION)
    else:
        found = exif_orientation(bytes(image.info.get("exif", b"")).removeprefix(b"Exif\0\0"))
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def _bits(image: Image.Image) -> int:
    """Bits per channel: Pillow opens a TIFF of 16-bit RGB as one of 8 bits."""
    tags = getattr(image, "tag_v2", {})
    stated = tags.get(_BITS, (8,)) if image.format == "TIFF" else (8,)
    return max(stated) if isinstance(stated, tuple) else int(stated)
