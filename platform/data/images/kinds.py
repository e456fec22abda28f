"""Kinds of image files, by the ending of the name and by content: read, or known but not read."""

import os
from typing import Literal

Format = Literal["png", "jpeg", "webp", "tiff", "bmp", "same"]
"""Formats of results; `same` is that of the image that came."""

SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
})  # fmt: skip
"""Endings of images that are read, in lower case."""

UNREAD = frozenset(
    {
        *(".heic", ".heif", ".hif", ".avif", ".avifs", ".gif", ".jp2", ".j2k", ".jpx", ".jpf"),
        *(".jxl", ".jxr", ".hdp", ".wdp", ".bpg", ".flif", ".qoi", ".ico", ".cur", ".apng"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".pfm", ".pcx", ".sgi", ".ras", ".xbm", ".xpm"),
        *(".psd", ".psb", ".xcf", ".kra", ".svg", ".svgz", ".eps", ".ai", ".wmf", ".emf"),
        *(".tga", ".dds", ".exr", ".hdr", ".rgbe", ".fits", ".dcm"),
        *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2"),
        *(".raf", ".pef", ".srw", ".raw", ".rwl", ".3fr", ".iiq", ".x3f", ".kdc", ".dcr", ".mrw"),
        *(".erf", ".mef", ".mos", ".gpr"),
    }
)
"""Endings of images, in lower case, that this package does not read."""

HEAD_BYTES = 32
"""How much of a file `kind_of` needs."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"8BPS\0\1", "Photoshop"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "camera raw",
}
"""Brands of ISO base media files that are images, not videos."""


_ENDINGS = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif", ".dib": ".bmp"}


def is_image(path: str | os.PathLike[str]) -> bool:
    """True for a name with the ending of an image file that is not hidden."""
    name = os.fspath(path).rpartition("/")[2]  # PurePath would take ten times as long
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")  # noqa: PTH122


def ending(name: str) -> str:
    """A file name's ending in its usual spelling: `.jpg` for `A.JPEG`."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return _ENDINGS.get(suffix, suffix)


def is_unread_kind(name: str) -> bool:
    """True for a name with the ending of an image that is not read, such as `.heic`."""
    return os.path.splitext(name)[1].lower() in UNREAD  # noqa: PTH122


def kind_of(head: bytes) -> str | None:
    """The kind of image that begins with these bytes, None if it does not look like one."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) >= 26:
        return "BMP"
    return None
