"""Decode and encode images: the header first, then the pixels, always as RGB uint8.

What `inspect` accepts, `decode_image` decodes: both read the header with the same code, and the
decoder gets only the parts of the file that pixels need.

The texts of the errors become the reasons of quarantined images in the manifest: other words give
a prepared dataset another identity.
"""

import io
import stat
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from derain.data.images import jpeg, png
from derain.data.images.facts import MAX_PIXELS, Bytes, Header, check_plain
from derain.data.images.headers import opened, read_header
from derain.data.images.turning import as_stored
from derain.errors import DataError
from derain.storage.files import of_the_kernel

MAX_BYTES = 3 * MAX_PIXELS + 2**20
"""The largest file: MAX_PIXELS uncompressed, and 1 MiB for metadata."""


def inspect(data: Bytes, name: str) -> Header:
    """The header of a plain image whose file is complete; PNG and JPEG are not decoded.

    Raises DataError that names the image, what was expected and what was found: what `read_header`
    raises, and for pixels that would have to be converted (see `facts.check_plain`).
    """
    header = read_header(data, name)
    check_plain(header, name)
    if header.format not in ("PNG", "JPEG"):
        stored_pixels(data, header, name)
    return header


def read_image(path: str | Path) -> np.ndarray:
    """The pixels of a file: uint8, HWC, RGB. Raises DataError that names the file."""
    return decode_image(read_file(path), str(path))


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises DataError that names it if it cannot be read, is no regular file (opening a pipe would
    wait for its writer), or has more than MAX_BYTES.
    """
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path}: not a regular file.")
        if of_the_kernel(found.st_dev):
            raise DataError(f"{path}: not a file, but a view of the system.")
        if found.st_size > MAX_BYTES:
            raise DataError(f"{path}: {found.st_size:,} bytes; at most {MAX_BYTES:,} are read.")
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


def decode_image(data: Bytes, name: str) -> np.ndarray:
    """The pixels of an encoded image: uint8, HWC, RGB.

    Raises DataError that names the image if it is damaged, has more than MAX_PIXELS, or is not
    plain RGB or grey (alpha, 16 bit, CMYK, several frames, a rotation).
    """
    header = read_header(data, name)
    check_plain(header, name)
    return stored_pixels(data, header, name)


def stored_pixels(data: Bytes, header: Header, name: str, mode: str = "RGB") -> np.ndarray:
    """The pixels as stored, neither turned nor colour-managed, in a Pillow mode of 8 bits.

    uint8, (height, width, channels), or (height, width) for one channel. Raises DataError.
    """
    lacking = None
    if header.format == "PNG":
        needed, formats = png.for_pixels(data), ("PNG",)
        if (header.colour, header.bits, mode) == ("RGB", 8, "RGB"):
            try:
                return np.asarray(imagecodecs.spng_decode(bytes(needed)))  # a quarter faster
            except imagecodecs.SpngError as error:  # Pillow says better why, if it refuses too
                lacking = str(error)
        else:
            lacking = png.lacking_pixels(needed)
    elif header.format == "JPEG":
        needed, formats = jpeg.for_pixels(data), ("JPEG",)
    else:
        needed, formats = data, (header.format,)
    with opened(needed, name, formats) as image:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    if lacking:  # Pillow makes the rows black that a whole stream of pixels lacks
        raise DataError(f"{name}: not a readable image ({lacking}).")
    # Pillow turns a TIFF when it loads it
    return as_stored(pixels, header.orientation) if header.format == "TIFF" else pixels


def encode_png(pixels: np.ndarray) -> bytes:
    """The PNG bytes of an image (uint8, HWC, RGB)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
