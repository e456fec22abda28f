"""EXIF for what becomes of an image: everything but the rotation, the old size and the preview."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from derain.data.images.metadata import MAX_EXIF_BYTES, upright_exif

PIXELS = np.zeros((20, 30, 3), np.uint8)


def with_exif(exif: Image.Exif | bytes, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def of_a_camera() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.DateTimeOriginal] = "2026:11:27 12:00:00"
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 30, 20
    inner[ExifTags.Base.MakerNote] = b"\1\2\3"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_all_but_the_rotation_stays(kind: str) -> None:
    found = Image.Exif()
    found.load(upright_exif(with_exif(of_a_camera(), kind), (20, 30)))
    assert found[ExifTags.Base.Make] == "Maker"
    assert found[ExifTags.Base.Orientation] == 1
    inner = found.get_ifd(ExifTags.IFD.Exif)
    assert inner[ExifTags.Base.DateTimeOriginal] == "2026:11:27 12:00:00"
    assert inner[ExifTags.Base.MakerNote] == b"\1\2\3"
    assert (inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight]) == (20, 30)
    assert found.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_no_exif_stays_none() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG")
    assert upright_exif(buffer.getvalue(), (30, 20)) == b""
    assert upright_exif(b"no image", (30, 20)) == b""


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + bytes(40),
        b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0",  # in itself
    ],
)
def test_broken_exif_costs_no_image(block: bytes) -> None:
    found = upright_exif(with_exif(b"Exif\0\0" + block), (30, 20))
    assert len(found) <= MAX_EXIF_BYTES


def test_what_a_jpeg_cannot_hold_is_left_out() -> None:
    exif = of_a_camera()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(MAX_EXIF_BYTES)
    assert upright_exif(with_exif(exif, "PNG"), (30, 20)) == b""
