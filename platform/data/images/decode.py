"""Decode and encode images: the size limit first, then the pixels, always as RGB uint8.

The texts of the errors become the reasons of quarantined images in the manifest: other words give
a prepared dataset another identity.
"""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from derain.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff"}
)
MAX_PIXELS = 64_000_000
"""8,000 x 8,000: more than any rain dataset has, less than what exhausts a worker's memory."""

MAX_BYTES = 3 * MAX_PIXELS + 2**20
"""The largest file: MAX_PIXELS uncompressed, and 1 MiB for metadata."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
"""Accepted formats of the content, whatever the name: Pillow would try 40, and run Ghostscript."""

_ENDINGS = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".dib": ".bmp", ".tiff": ".tif"}

_CONVERTIBLE = frozenset({"RGB", "L", "P", "1"})


def is_image(path: str | os.PathLike[str]) -> bool:
    """True for a name with the ending of an image file that is not hidden."""
    name = os.fspath(path).rpartition("/")[2]  # PurePath would take ten times as long
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")  # noqa: PTH122


def ending(name: str) -> str:
    """A file name's ending in its usual spelling: `.jpg` for `A.JPEG`."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return _ENDINGS.get(suffix, suffix)


def read_image(path: str | Path) -> np.ndarray:
    """The pixels of a file: uint8, HWC, RGB. Raises DataError that names the file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The pixels of an encoded image: uint8, HWC, RGB.

    Raises DataError that names the image if it is damaged, has more than MAX_PIXELS, or does not
    convert to plain RGB (alpha, 16 bit, CMYK, several frames, a rotation).
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _refuse_unusual(image, name)
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except DataError:
        raise
    except UnidentifiedImageError:  # Pillow's text contains an address, which differs each time
        raise DataError(f"{name}: not a readable image (no {', '.join(_FORMATS)}).") from None
    except Exception as error:  # Pillow raises many types for damaged files
        raise DataError(f"{name}: not a readable image ({error}).") from None


def encode_png(pixels: np.ndarray) -> bytes:
    """The PNG bytes of an image (uint8, HWC, RGB)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _refuse_unusual(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{name}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read.")
    if image.mode not in _CONVERTIBLE or "transparency" in image.info:
        raise DataError(f"{name}: mode {image.mode}; expected 8-bit RGB or grey without alpha.")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{name}: an animation; expected one image.")
    if image.getexif().get(0x0112, 1) != 1:
        raise DataError(f"{name}: rotated by an EXIF or XMP tag; save it upright first.")
