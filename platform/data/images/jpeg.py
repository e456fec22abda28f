"""JPEG files: every segment of the header, the end mark, and the segments that pixels need.

Pixel data has no checksum in JPEG, so nothing, decoders included, detects a changed byte there.
A camera's file may contain a preview or a second image behind the first one (MPO): it is one image
here, the first one, as for every viewer.
"""

import struct
from collections.abc import Iterator

from derain.data.images.facts import Bytes, Header, check_size
from derain.data.images.metadata import UPRIGHT, exif_orientation, xmp_orientation
from derain.errors import DataError

SIGNATURE = b"\xff\xd8"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Start of frame: baseline, extended, progressive. The others are not in use."""
_SCAN, _END = 0xDA, b"\xff\xd9"
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_COLOURS = {1: "grey", 3: "RGB", 4: "CMYK"}
_LEAST = {0xE0: 14, 0xEE: 12}
"""Bytes of a JFIF and of an Adobe segment, which say how colours are stored; shorter ones do not.
"""
_OTHER_METADATA = frozenset({0xFE, *range(0xE1, 0xEE), 0xEF})


def read_header(data: Bytes, name: str) -> Header:
    """What a JPEG says about its image. Raises DataError for a damaged or incomplete file."""
    view = memoryview(data)
    frame: tuple[int, int, str, int] | None = None
    exif: int | None = None
    xmp: int | None = None
    profile: dict[int, bytes] = {}
    at = len(SIGNATURE)
    for marker, begin, end in _segments(view, name):
        at = end
        if marker in _FRAMES:
            frame = _parse_frame(view[begin:end], name)
        elif marker == 0xE1:
            body = bytes(view[begin:end])
            if body.startswith(_EXIF):
                exif = exif or exif_orientation(body[len(_EXIF) :])
            elif body.startswith(_XMP):
                xmp = xmp or xmp_orientation(body[len(_XMP) :])
        elif marker == 0xE2:
            body = bytes(view[begin:end])
            if body.startswith(_ICC) and len(body) >= len(_ICC) + 2:
                profile[body[len(_ICC)]] = body[len(_ICC) :]
    if frame is None:
        raise DataError(f"{name}: its pixels have no frame header of a kind that we read.")
    if _END not in bytes(view[max(at, len(view) - 64) :]) and _END not in bytes(view[at:]):
        raise DataError(f"{name}: damaged: ends at byte {len(view)} without its end mark.")
    turn = exif or xmp or UPRIGHT
    return Header("JPEG", *frame, orientation=turn, profile=_joined(profile))


def for_pixels(data: Bytes) -> bytes:
    """A whole JPEG without the segments that change no pixel."""
    view = memoryview(data)
    kept, at = [view[: len(SIGNATURE)]], len(SIGNATURE)
    for marker, begin, end in _segments(view, "image"):
        if marker == _SCAN:
            break
        if marker not in _OTHER_METADATA and end - begin >= _LEAST.get(marker, 0):
            kept.append(view[at:end])
        at = end
    return b"".join((*kept, view[at:]))


def _segments(data: memoryview, name: str) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of the content of each header segment, the first scan's included."""
    marker, at = 0, len(SIGNATURE)
    while marker != _SCAN:
        marker, begin, at = _segment(data, at, name)
        yield marker, begin, at


def _segment(data: memoryview, at: int, name: str) -> tuple[int, int, int]:
    """Marker of the header segment at an offset, and the begin and end of its content."""
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] == 0xFF:
        at += 1  # fill bytes
    if at + 4 > len(data):
        raise DataError(f"{name}: damaged: ends at byte {len(data)}, inside its header.")
    marker = data[at + 1]
    if data[at] != 0xFF or marker in (0x00, 0xD8, 0xD9):
        raise DataError(f"{name}: damaged: no JPEG marker at byte {at}.")
    if marker in _WITHOUT_LENGTH:
        return marker, at + 2, at + 2
    (length,) = struct.unpack_from(">H", data, at + 2)
    if length < 2 or at + 2 + length > len(data):
        raise DataError(f"{name}: damaged: segment {marker:02x} at byte {at} ends outside.")
    return marker, at + 4, at + 2 + length


def _parse_frame(body: memoryview, name: str) -> tuple[int, int, str, int]:
    """Width, height, colour and bits."""
    if len(body) < 6:
        raise DataError(f"{name}: damaged: its frame header is too short.")
    bits, height, width, channels = struct.unpack_from(">BHHB", body)
    check_size(width, height, name)
    return width, height, _COLOURS.get(channels, f"{channels} channels"), bits


def _joined(parts: dict[int, bytes]) -> bytes | None:
    """The ICC profile from its numbered parts; None without one, or if a part is missing."""
    if not parts or sorted(parts) != list(range(1, parts[min(parts)][1] + 1)):
        return None
    return b"".join(parts[number][2:] for number in sorted(parts))
