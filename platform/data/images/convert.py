"""Convert any image that can be read to upright 8-bit sRGB, by fixed rules, and give back its form.

The rules, in this order: 16 bits are rounded to 8 (level x 255 / 65535); CMYK and YCbCr become RGB,
and an ICC profile is converted to sRGB (relative colorimetric, black point compensation); the EXIF
orientation is applied; transparency is flattened on white.
"""

from dataclasses import dataclass
from functools import cached_property

import imagecodecs
import numpy as np

from derain.data.images import colour, png
from derain.data.images.decode import stored_pixels
from derain.data.images.facts import Bytes, Header
from derain.data.images.headers import read_header
from derain.data.images.metadata import UPRIGHT
from derain.data.images.turning import upright
from derain.errors import DataError

WHITE = 255
_DEEP = 65535
_PNG = imagecodecs.PNG
_RUNS = {"level": 1, "strategy": _PNG.STRATEGY.RLE, "filter": _PNG.FILTER.PAETH}
"""How a PNG is stored: Paeth's filter in each row, then runs of a byte and Huffman's code, without
zlib's search for repetitions, which photographs do not have. 512 x 512 px take 9 to 12 ms; level 3
with all filters takes 21 to 30, for files that are 3 % smaller to 12 % larger."""
_REFUSED: list[None] = []
"""A reference to None for each that imagecodecs 2026.3 gives away with a PNG that it refuses:
Python 3.11 ends when it has none left, after some ten thousand."""
_PILLOW_COLOURS = frozenset({"grey", "RGB", "palette", "CMYK", "YCbCr"})


@dataclass(frozen=True)
class OddImage:
    """An image of any kind that is read, upright, with its transparency apart."""

    header: Header
    levels: np.ndarray
    """uint8 or uint16: HWC in the image's own colours, or HW for grey. CMYK and YCbCr are RGB."""
    alpha: np.ndarray | None
    """HW, of the same type; None without transparency."""

    @cached_property
    def srgb(self) -> np.ndarray:
        """The colours in sRGB: HWC, RGB, uint8, or uint16 for a deep image already in sRGB."""
        levels = self.levels
        if self._is_srgb:
            return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
        return colour.to_srgb(to_8_bits(levels), self.header)

    @property
    def _is_srgb(self) -> bool:
        return self.header.colour == "CMYK" or colour.is_srgb(self.header)

    def plain(self) -> np.ndarray:
        """uint8, HWC, RGB, sRGB, on white where it is transparent."""
        levels = to_8_bits(self.srgb)
        if self.alpha is None:
            return levels
        share = to_8_bits(self.alpha)[..., None].astype(np.float32) / 255
        return np.rint(levels * share + WHITE * (1 - share)).astype(np.uint8)

    def changes(self) -> tuple[str, ...]:
        """What `plain` changes; empty for an image that is plain and in sRGB."""
        deep = self.header.bits > 8
        rounded = (f"{self.header.bits} bits rounded to 8",) if deep else ()
        flattened = () if self.alpha is None else ("transparency flattened on white",)
        return (*rounded, *self.conversions(), *flattened)

    def conversions(self) -> tuple[str, ...]:
        """What differs between `srgb` and the stored image."""
        found = []
        if self.header.colour in ("CMYK", "YCbCr"):
            found.append(f"{self.header.colour} to RGB")
        if not self._is_srgb:
            found.append(f"{colour.name_of(self.header)} to sRGB")
        if self.header.orientation != UPRIGHT:
            found.append("turned upright")
        return tuple(found)

    def encode_result(self, result: np.ndarray) -> bytes:
        """A PNG of a processed image, in the form of this one.

        `result` is what became of `srgb`: same shape and type. The file is upright. It has this
        image's alpha, profile and bits per channel, and is grey if this image is. Colours outside
        sRGB stay, because only the difference to `srgb` is carried over to the image's profile.
        """
        levels, profile = self.result_levels(result)
        encoded = _encode(levels)
        return encoded if profile is None else png.with_profile(encoded, profile)

    def result_levels(self, result: np.ndarray) -> tuple[np.ndarray, bytes | None]:
        """The levels of the file that `encode_result` writes, alpha last, and its profile."""
        levels = result
        profile = None
        if not self._is_srgb:
            levels, profile = self._in_own_colours(result), self.header.profile
        elif self.levels.ndim == 2:
            levels = _luma(result)
        return (levels if self.alpha is None else np.dstack((levels, self.alpha))), profile

    def _in_own_colours(self, result: np.ndarray) -> np.ndarray:
        before, after = (colour.from_srgb(it, self.header) for it in (self.srgb, result))
        unit, top = (257, _DEEP) if self.levels.dtype == np.uint16 else (1, 255)
        moved = self.levels.astype(np.int32) + unit * (after.astype(np.int32) - before)
        return np.clip(moved, 0, top).astype(self.levels.dtype)


def read_odd(data: Bytes, name: str) -> OddImage:
    """Read an image of any supported format, with its conversions pending.

    Raises DataError that names the image if it is damaged, or of a kind that is not converted:
    several frames, floating point, 32 bits, Lab.
    """
    header = read_header(data, name)
    kind = header.colour.removesuffix(" with alpha")
    if kind not in _PILLOW_COLOURS or header.bits > 16 or (header.bits > 8 and kind == "CMYK"):
        raise DataError(
            f"{name}: {header.bits} bits per channel, {header.colour}; only RGB, grey, palette, "
            "CMYK and YCbCr of 8 bits, and RGB and grey of 16 bits, are converted."
        )
    stored = _deep(data, header, name) if header.bits > 8 else _shallow(data, header, name)
    levels, alpha = _apart(upright(stored, header.orientation), header.alpha)
    if kind == "CMYK":
        levels = colour.to_srgb(levels, header)
    return OddImage(header, levels, alpha)


def _shallow(data: Bytes, header: Header, name: str) -> np.ndarray:
    """The stored levels of an image of 8 bits: HW, or HWC with alpha last."""
    mode = colour.mode_of(header)
    if header.alpha:
        mode += "A"
    return stored_pixels(data, header, name, mode)


def _deep(data: Bytes, header: Header, name: str) -> np.ndarray:
    """The stored levels of an image of 16 bits, which Pillow would cut to 8."""
    decode = imagecodecs.png_decode if header.format == "PNG" else imagecodecs.tiff_decode
    try:
        stored = decode(bytes(png.for_pixels(data)) if header.format == "PNG" else bytes(data))
    except Exception as error:  # a type of its own for each codec
        _REFUSED.append(None)
        raise DataError(f"{name}: not a readable image ({error}).") from None
    if stored.dtype != np.uint16 or stored.shape[:2] != (header.height, header.width):
        raise DataError(
            f"{name}: {stored.dtype} of the shape {stored.shape}; expected 16-bit RGB or grey."
        )
    return stored


def _apart(stored: np.ndarray, has_alpha: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours and alpha."""
    if not has_alpha:
        return stored, None
    levels, alpha = stored[..., :-1], stored[..., -1]
    return np.ascontiguousarray(levels[..., 0] if levels.shape[2] == 1 else levels), alpha


def to_8_bits(levels: np.ndarray) -> np.ndarray:
    """uint8 levels, or uint16 ones rounded to them, as uint8."""
    if levels.dtype == np.uint8:
        return levels
    return ((levels.astype(np.uint32) * 255 + _DEEP // 2) // _DEEP).astype(np.uint8)


def _luma(result: np.ndarray) -> np.ndarray:
    """Grey of an RGB image of any type (ITU-R 601): HW."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.rint(result @ weights).astype(result.dtype)


def _encode(levels: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(levels), **_RUNS))
