"""A derained image as a file: in the form of the image that came, or in a format asked for.

PNG and TIFF keep everything: bits per channel, alpha, grey, colour profile. JPEG, WebP and BMP have
8 bits, JPEG and BMP no alpha; what they cannot hold is converted by the rules of `convert`. EXIF
stays in PNG, JPEG and WebP.
"""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from derain.data.images import png
from derain.data.images.convert import OddImage
from derain.data.images.kinds import Format
from derain.data.images.metadata import upright_exif
from derain.errors import UsageError

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
}
ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}
QUALITY = 95
"""Of JPEG, and of WebP with losses; JPEG without subsampling of colours."""
_DEEP = ("PNG", "TIFF")
_TRANSPARENT = ("PNG", "TIFF", "WEBP")
_WITH_EXIF = ("PNG", "JPEG", "WEBP")
_LOSSLESS = b"VP8L"
_CHUNKS_AT = 12


@dataclass(frozen=True)
class Form:
    """The format of results. Raises UsageError for a quality that nothing would use."""

    format: Format = "png"
    quality: int | None = None
    """1 to 100, of JPEG and WebP; without one, 95 for JPEG, and WebP has no losses."""

    def __post_init__(self) -> None:
        if self.quality is None:
            return
        if not 1 <= self.quality <= 100:
            raise UsageError(f"The quality must be from 1 to 100, found {self.quality}.")
        if self.format not in ("jpeg", "webp", "same"):
            raise UsageError(
                f"The quality {self.quality} is for jpeg and webp; {self.format} has no losses. "
                "Leave it out, or give --format jpeg or webp."
            )

    def ending(self, name: PurePosixPath) -> str:
        """The ending of the result of an image file of this name."""
        return ENDINGS.get(self.format, name.suffix)

    def encode(self, image: OddImage, result: np.ndarray, given: bytes) -> bytes:
        """The file of `result`, which became of `image.srgb`; `given` are the bytes of the image.

        In the form `same`, a WebP that came without losses has none.
        """
        format = image.header.format if self.format == "same" else self.format.upper()
        lossless = self.quality is None and (self.format != "same" or _is_lossless(given))
        height, width = result.shape[:2]
        exif = upright_exif(given, (width, height)) if format in _WITH_EXIF else b""
        if format == "PNG":
            return png.with_exif(image.encode_result(result), exif)
        return _encoded(image, result, format, self.quality or QUALITY, exif, lossless=lossless)

    def changes(self, image: OddImage) -> tuple[str, ...]:
        """What the format cannot hold of an image."""
        format = image.header.format if self.format == "same" else self.format.upper()
        deep = image.levels.dtype == np.uint16 and format not in _DEEP
        clear = image.alpha is not None and format not in _TRANSPARENT
        return (
            *(("16 bits rounded to 8",) if deep else ()),
            *(("transparency flattened on white",) if clear else ()),
        )


SAME = Form("same")


def _encoded(
    image: OddImage, result: np.ndarray, format: str, quality: int, exif: bytes, *, lossless: bool
) -> bytes:
    levels, profile = image.result_levels(result)
    if format == "TIFF":
        return _tiff(levels, image, profile)
    levels = _in_8_bits(levels)
    if format not in _TRANSPARENT and image.alpha is not None:
        levels = _on_white(levels)
    options: dict[str, Any] = {"icc_profile": profile} if profile and format != "BMP" else {}
    if format == "JPEG":
        options |= {"quality": quality, "subsampling": 0}
    elif format == "WEBP":
        options |= {"lossless": lossless, "quality": quality, "exact": lossless}
    if exif:
        options["exif"] = b"Exif\0\0" + exif
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format=format, **options)
    return buffer.getvalue()


def _in_8_bits(levels: np.ndarray) -> np.ndarray:
    if levels.dtype == np.uint8:
        return levels
    return np.rint(levels * np.float32(255 / 65535)).astype(np.uint8)


def _on_white(levels: np.ndarray) -> np.ndarray:
    """Levels with alpha last, HWC -> HWC of the colours, or HW of grey."""
    share = levels[..., -1:].astype(np.float32) / 255
    flat = np.rint(levels[..., :-1] * share + 255 * (1 - share)).astype(np.uint8)
    return flat[..., 0] if flat.shape[2] == 1 else flat


def _is_lossless(webp: bytes) -> bool:
    """Whether the pixels of a WebP file are stored without losses."""
    at = _CHUNKS_AT
    while at + 8 <= len(webp):
        kind, size = webp[at : at + 4], int.from_bytes(webp[at + 4 : at + 8], "little")
        if kind in (_LOSSLESS, b"VP8 "):
            return kind == _LOSSLESS
        at += 8 + size + size % 2
    return False


def _tiff(levels: np.ndarray, image: OddImage, profile: bytes | None) -> bytes:
    options: dict[str, Any] = {"compression": "deflate", "iccprofile": profile}
    options["photometric"] = "minisblack" if image.levels.ndim == 2 else "rgb"
    if image.alpha is not None:
        options |= {"extrasample": "unassalpha", "planarconfig": "contig"}
    return bytes(imagecodecs.tiff_encode(np.ascontiguousarray(levels), **options))
