"""ICC profiles: whether an image is in sRGB, and its conversion to sRGB and back.

An image without a profile is in sRGB, as viewers and networks take it. A profile that cannot be
read, or that is of another kind of colours than the image, is ignored, as viewers do.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from derain.data.images.facts import Header

SAME_LEVELS = 2
"""Profiles whose colours differ by at most this, of 255, are the same: makers round differently."""

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
"""Without a cache, several threads may use one transform."""
_PROBES = 9
"""Levels per channel at which two profiles are compared."""


def mode_of(header: Header) -> str:
    """The Pillow mode that holds an image's colours without its alpha: RGB, L or CMYK."""
    colour = header.colour.removesuffix(" with alpha")
    return {"grey": "L", "CMYK": "CMYK"}.get(colour, "RGB")


def name_of(header: Header) -> str:
    """The name of an image's colour space: that of its profile, sRGB without one."""
    profile = _parsed(header.profile or b"", mode_of(header))
    if profile is None:
        return "sRGB"
    return ImageCms.getProfileDescription(profile).strip() or "unnamed profile"


def is_srgb(header: Header) -> bool:
    """Whether an image's levels are those of sRGB, whatever its profile is called."""
    mode = mode_of(header)
    return header.profile is None or _difference(header.profile, mode, b"", mode) <= SAME_LEVELS


def same_colours(one: Header, other: Header) -> bool:
    """Whether equal levels are equal colours in two images."""
    if one.profile == other.profile:
        return True
    difference = _difference(one.profile or b"", mode_of(one), other.profile or b"", mode_of(other))
    return difference <= SAME_LEVELS


def to_srgb(levels: np.ndarray, header: Header) -> np.ndarray:
    """The colours of an image in sRGB: uint8, HWC, from uint8 in the mode of `mode_of`."""
    mode = mode_of(header)
    image = Image.fromarray(levels, mode)
    transform = _to_srgb(header.profile or b"", mode)
    if transform is None:
        return np.asarray(image.convert("RGB"))
    return np.asarray(transform.apply(image))


def from_srgb(levels: np.ndarray, header: Header) -> np.ndarray:
    """The inverse of `to_srgb` for RGB and grey: uint8, HWC or HW."""
    mode = mode_of(header)
    transform = _from_srgb(header.profile or b"", mode)
    image = Image.fromarray(levels)
    return np.asarray(image.convert(mode) if transform is None else transform.apply(image))


@lru_cache(maxsize=16)
def _parsed(profile: bytes, mode: str) -> ImageCms.ImageCmsProfile | None:
    if not profile:
        return None
    try:
        parsed = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return parsed if parsed.profile.xcolor_space == _SPACES[mode] else None
    except (OSError, ImageCms.PyCMSError):
        return None


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    return _transform(_parsed(profile, mode), _srgb(), mode, "RGB")


@lru_cache(maxsize=16)
def _from_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    return _transform(_srgb(), _parsed(profile, mode), "RGB", mode)


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _transform(
    source: ImageCms.ImageCmsProfile | None,
    target: ImageCms.ImageCmsProfile | None,
    source_mode: str,
    target_mode: str,
) -> ImageCms.ImageCmsTransform | None:
    """A transform between two profiles; None if one is missing or goes one way only."""
    if source is None or target is None:
        return None
    try:
        return ImageCms.buildTransform(
            source,
            target,
            source_mode,
            target_mode,
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            _FLAGS,
        )
    except ImageCms.PyCMSError:
        return None


@lru_cache(maxsize=64)
def _difference(one: bytes, one_mode: str, other: bytes, other_mode: str) -> int:
    """The largest difference in sRGB, of 255, that equal levels have under two profiles."""
    if "CMYK" in (one_mode, other_mode):
        return 0 if (one, one_mode) == (other, other_mode) else 255
    shared = "L" if "L" in (one_mode, other_mode) else "RGB"
    left, right = (
        _probe(profile, mode, shared) for profile, mode in ((one, one_mode), (other, other_mode))
    )
    return int(np.abs(left.astype(int) - right).max())


def _probe(profile: bytes, mode: str, shared: str) -> np.ndarray:
    """The colours of a grid of levels in sRGB; of greys only if `shared` is L."""
    steps = np.linspace(0, 255, 256 if shared == "L" else _PROBES).round().astype(np.uint8)
    if mode == "L":
        levels = steps[None]
    elif shared == "L":
        levels = np.repeat(steps[None, :, None], 3, axis=2)
    else:
        levels = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    header = Header("PNG", 1, 1, "grey" if mode == "L" else "RGB", 8, profile=profile)
    return to_srgb(levels, header)
