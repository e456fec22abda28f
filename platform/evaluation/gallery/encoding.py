"""The images of a page as files: as exact and as large as their share of the page allows."""

import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from derain.evaluation.gallery.images import ERROR_LEVELS, GalleryImage

QUALITIES = (95, 85)
THUMBNAIL_PX = 96
"""The longer side of a thumbnail."""

_COLOURS = ((0, 0, 0), (70, 20, 110), (190, 50, 90), (250, 140, 50), (255, 255, 220))
"""Of an error map, RGB, from no error to the largest, at even distances."""

Levels = UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class Encoded:
    """The file of an image."""

    media_type: str
    data: bytes


@dataclass(frozen=True)
class Panels:
    """The files of one `GalleryImage`."""

    coding: str
    """How the images were written, for a reader."""
    images: Mapping[str, Encoded]
    """By name: rainy, each version, clean."""
    errors: Mapping[str, Encoded]
    """Error maps, by the name of the image that is compared with the clean one."""

    @property
    def size(self) -> int:
        """Bytes in base64, as which a page holds them."""
        files = itertools.chain(self.images.values(), self.errors.values())
        return sum(-(-len(file.data) // 3) * 4 for file in files)


def encode(image: GalleryImage, share_bytes: int) -> Panels:
    """The files of an image, which have at most `share_bytes` in base64.

    The first of these that fits: PNG; JPEG of quality 95 or 85, with all of the colour (4:4:4);
    these at 1/2, 1/4, ... of the size, down to one pixel. Error maps are computed from the pixels
    of `image` and stored without loss; at 1/n of the size, each of their pixels is the largest
    error of the n x n that it stands for.
    """
    maps = image.error_maps()
    exact = Panels("exact pixels", *_pngs(image, maps, share_bytes))
    if exact.images and exact.size <= share_bytes:
        return exact
    for factor in (2**power for power in itertools.count()):
        errors = {name: png_of_levels(largest_of_blocks(of, factor)) for name, of in maps.items()}
        small = {name: mean_of_blocks(of, factor) for name, of in image.images().items()}
        for quality in QUALITIES:
            images = {name: _jpeg(pixels, quality) for name, pixels in small.items()}
            panels = Panels(_coding(quality, factor), images, errors)
            if panels.size <= share_bytes or factor >= max(image.rain.shape):
                return panels
    raise AssertionError("the factor has an end")


def png_of_levels(levels: Levels) -> Encoded:
    """An error map as a PNG with a palette: the index of a pixel is its level."""
    indexed = Image.fromarray(levels).convert("P")
    indexed.putpalette(palette().tobytes())
    return _saved(indexed, "PNG")


def palette() -> UInt8[np.ndarray, "levels 3"]:
    """The colour of each level of an error map: RGB, brighter for larger errors."""
    at = np.linspace(0, len(_COLOURS) - 1, ERROR_LEVELS)
    channels = [np.interp(at, range(len(_COLOURS)), levels) for levels in np.array(_COLOURS).T]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def thumbnail(pixels: np.ndarray) -> Encoded:
    """A small JPEG of an image (uint8, HWC, RGB)."""
    small = Image.fromarray(pixels)
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return _saved(small, "JPEG", quality=80)


def mean_of_blocks(pixels: np.ndarray, factor: int) -> np.ndarray:
    """An image (uint8, HWC) at 1/factor of the size; blocks at the edge may be smaller."""
    return np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels


def largest_of_blocks(levels: Levels, factor: int) -> Levels:
    """The largest level of each factor x factor block; blocks at the edge may be smaller."""
    height, width = levels.shape
    padded = np.pad(levels, ((0, -height % factor), (0, -width % factor)))
    blocks = padded.reshape(-(-height // factor), factor, -(-width // factor), factor)
    return blocks.max(axis=(1, 3))


def _pngs(
    image: GalleryImage, maps: Mapping[str, Levels], share_bytes: int
) -> tuple[dict[str, Encoded], dict[str, Encoded]]:
    """All images and error maps as PNG; both empty as soon as they do not fit."""
    errors = {name: png_of_levels(levels) for name, levels in maps.items()}
    images: dict[str, Encoded] = {}
    for name, pixels in image.images().items():
        images[name] = _saved(Image.fromarray(pixels), "PNG", compress_level=1)
        if Panels("", images, errors).size > share_bytes:
            return {}, {}
    return images, errors


def _jpeg(pixels: np.ndarray, quality: int) -> Encoded:
    return _saved(Image.fromarray(pixels), "JPEG", quality=quality, subsampling=0)


def _saved(image: Image.Image, kind: str, **options: Any) -> Encoded:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return Encoded(f"image/{kind.lower()}", file.getvalue())


def _coding(quality: int, factor: int) -> str:
    size = f" at 1/{factor} of the size" if factor > 1 else ""
    return f"JPEG of quality {quality}{size}"
