"""A derained image in the format of the one that came: bits, alpha, grey and profile as in it."""

import io
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from derain.data.images.convert import OddImage

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
}
QUALITY = 95
"""Of JPEG and of WebP with losses; JPEG without subsampling of colours."""
_LOSSLESS = b"VP8L"
_CHUNKS_AT = 12


def encode_as_given(image: OddImage, result: np.ndarray, given: bytes) -> bytes:
    """The result of `image.srgb` as a file of the format that `given` has.

    PNG, TIFF, BMP and WebP of a lossless file have exactly the pixels that `predict` writes.
    """
    format = image.header.format
    if format == "PNG":
        return image.encode_result(result)
    levels, profile = image.result_levels(result)
    if format == "TIFF":
        return _tiff(levels, image, profile)
    options: dict[str, Any] = {"icc_profile": profile} if profile and format != "BMP" else {}
    if format == "JPEG":
        options |= {"quality": QUALITY, "subsampling": 0}
    elif format == "WEBP":
        lossless = _is_lossless(given)
        options |= {"lossless": lossless, "quality": QUALITY, "exact": lossless}
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format=format, **options)
    return buffer.getvalue()


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
