"""Kinds of images that are known but not read: by name and by content."""

from pathlib import Path

import pytest

from derain.data.images.kinds import HEAD_BYTES, SUFFIXES, UNREAD, is_unread_kind, kind_of
from tests.folders import noise_image


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("PNG", "PNG"), ("JPEG", "JPEG"), ("BMP", "BMP"), ("WEBP", "WebP"), ("TIFF", "TIFF")),
        *(("GIF", "GIF"), ("JPEG2000", "JPEG 2000"), ("AVIF", "AVIF")),
    ],
)
def test_an_image_is_known_by_its_first_bytes(kind: str, name: str, tmp_path: Path) -> None:
    noise_image(1, width=8, height=8).save(tmp_path / "x", kind)
    assert kind_of((tmp_path / "x").read_bytes()[:HEAD_BYTES]) == name


@pytest.mark.parametrize("text", [b"", b"BM", b"Not an image", b"RIFF1234AVI LIST", b"BMW x5"])
def test_what_is_no_image_is_not_taken_for_one(text: bytes) -> None:
    assert kind_of(text) is None


def test_an_ending_is_read_or_not() -> None:
    assert not UNREAD & SUFFIXES
    assert is_unread_kind("in/A.HEIC")
    assert not is_unread_kind("in/heic")
