"""Reading an image: the header first, then the pixels, always as RGB uint8."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from derain.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 64_000_000
"""8,000 x 8,000: above the largest image of any rain dataset, below what exhausts a worker."""

MAX_BYTES = 3 * MAX_PIXELS + 2**20
"""What so many pixels take uncompressed, and a MiB for all else that a file may hold."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
"""Of a file's content, whatever its name: Pillow would try 40 kinds, and start Ghostscript."""

_ENDINGS = {".jpeg": ".jpg", ".tiff": ".tif"}

_CONVERTIBLE = frozenset({"RGB", "L", "P", "1"})


def is_image(path: str | os.PathLike[str]) -> bool:
    """True for a file name that ends like an image and is not hidden."""
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

    Raises DataError that names the image when it is damaged, has more than MAX_PIXELS, or is of
    a kind that has no plain RGB meaning (alpha, 16 bit, CMYK, several frames, a rotation).
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _refuse_unusual(image, name)
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except DataError:
        raise
    except UnidentifiedImageError:  # Pillow's text has an address in it, another one each time
        raise DataError(f"{name}: not a readable image (no {', '.join(_FORMATS)}).") from None
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"{name}: not a readable image ({error}).") from None


def encode_png(pixels: np.ndarray) -> bytes:
    """Lossless PNG bytes of an RGB uint8 HWC array."""
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
