"""Orientation from the metadata of an image: EXIF, and XMP where EXIF has none. And the EXIF for
what becomes of an image."""

import contextlib
import io
import re
import struct
import warnings
import zlib

from PIL import ExifTags, Image

UPRIGHT = 1
_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I", 9: "i"}
"""EXIF types of one integer, as `struct` formats: BYTE, SHORT, LONG, SLONG."""
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
_MAX_TEXT = 2**22
"""Bytes of a compressed text that are read: orientations are near its beginning."""
MAX_EXIF_BYTES = 65_000
"""What a JPEG can hold of it."""
# Broken entries are left out. Once for the process: `catch_warnings` is not for threads.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)
_SIZE = ((ExifTags.Base.ExifImageWidth, 0), (ExifTags.Base.ExifImageHeight, 1))


def exif_orientation(exif: bytes) -> int | None:
    """The orientation in EXIF, 1 (upright) to 8.

    None without one, for a number outside 1..8 (0 is what some phones write), and for EXIF that
    cannot be read: viewers show such an image as it is stored.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (at,) = struct.unpack_from(f"{order}I", exif, 4)
    if at + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
        if tag == _ORIENTATION and kind in _INTEGERS and values:
            (value,) = struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)
            return value if 1 <= value <= 8 else None
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """The orientation in XMP, 1 to 8; None without one."""
    found = _XMP.search(xmp)
    return int(found[1]) if found else None


def png_text_orientation(kind: bytes, body: bytes) -> int | None:
    """The orientation in a text chunk of a PNG: XMP, or EXIF in ImageMagick's spelling."""
    key, _, rest = body.partition(b"\0")
    if kind == b"iTXt" and key == b"XML:com.adobe.xmp":
        return xmp_orientation(_international_text(rest))
    if key in (b"Raw profile type exif", b"Raw profile type APP1"):
        text = rest if kind == b"tEXt" else _inflated(rest[1:])
        if kind == b"iTXt":
            text = _international_text(rest)
        return exif_orientation(_raw_profile(text).removeprefix(b"Exif\0\0"))
    return None


def _international_text(rest: bytes) -> bytes:
    """The text of an iTXt chunk: after two flags, the language and the translated keyword."""
    text = rest[2:].split(b"\0", 2)[-1]
    return _inflated(text) if rest[:1] == b"\1" else text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_TEXT)
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes:
    """The bytes of a raw profile: a line with its kind, one with its length, then hexadecimal."""
    with contextlib.suppress(ValueError, UnicodeDecodeError):
        return bytes.fromhex("".join(text.decode("ascii").split()[2:]))
    return b""


def upright_exif(data: bytes, size: tuple[int, int]) -> bytes:
    """The EXIF of a JPEG, PNG or WebP as the block of a TIFF, for the upright image of `size`.

    `size` is (width, height). Empty if there is none, if it cannot be read, or if it is larger than
    MAX_EXIF_BYTES. Cameras' own notes are kept as bytes, the preview is left out.
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
    return found if len(found) <= MAX_EXIF_BYTES else b""
