"""The EXIF of an image for what becomes of it: upright, without a preview."""

import io
import warnings

from PIL import ExifTags, Image

from derain.data.images.facts import Bytes
from derain.data.images.metadata import UPRIGHT

MAX_BYTES = 65_000
"""What a JPEG can hold of it."""
# Broken entries are left out. Once for the process: `catch_warnings` is not for threads.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)
_SIZE = ((ExifTags.Base.ExifImageWidth, 0), (ExifTags.Base.ExifImageHeight, 1))


def upright_exif(data: Bytes, size: tuple[int, int]) -> bytes:
    """The EXIF of a JPEG, PNG or WebP as the block of a TIFF, for the upright image of `size`.

    `size` is (width, height). Empty if there is none, if it cannot be read, or if it is larger than
    MAX_BYTES. Cameras' own notes are kept as bytes, the preview is left out.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if "exif" not in image.info:
                return b""
            exif = image.getexif()
        exif[ExifTags.Base.Orientation] = UPRIGHT
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        for tag, side in _SIZE:
            if tag in inner:
                inner[tag] = size[side]
        found = exif.tobytes().removeprefix(b"Exif\0\0")
    except Exception:  # Pillow raises many types for broken metadata, which cost no image
        return b""
    return found if len(found) <= MAX_BYTES else b""
