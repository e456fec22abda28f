"""Hostile and unusual images: each is read or refused by name, and none takes much memory."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from derain.data.images.decode import decode_image, inspect
from derain.data.images.png import SIGNATURE
from derain.errors import DataError

MEMORY_LIMIT = 2**30


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
PNG, JPEG = encoded(NOISE), encoded(NOISE, format="JPEG", quality=90)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG with correct CRCs around any content."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", pixels or zlib.compress(bytes(64)))
    return SIGNATURE + head + body + chunk(b"IEND", b"")


def rotated(kind: str, tag: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return encoded(NOISE, format=kind, exif=exif)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def with_xmp(kind: str, tag: int) -> bytes:
    """An image whose XMP states an orientation."""
    if kind == "JPEG":
        segment = b"http://ns.adobe.com/xap/1.0/\0" + XMP % tag
        return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]
    return with_text("XML:com.adobe.xmp", (XMP % tag).decode())


def with_text(key: str, text: str) -> bytes:
    texts = PngInfo()
    texts.add_itxt(key, text, zip=True)
    return encoded(NOISE, pnginfo=texts)


def raw_profile(tag: int) -> str:
    """EXIF as ImageMagick writes it into a PNG."""
    exif = Image.Exif()
    exif[0x0112] = tag
    return f"\nexif\n{len(exif.tobytes()):8d}\n{exif.tobytes().hex()}\n"


def animated(kind: str) -> bytes:
    return encoded(NOISE, format=kind, save_all=True, append_images=[NOISE.rotate(90)])


def jpeg_of(width: int, height: int) -> bytes:
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9 :]


HOSTILE = {
    "empty": b"",
    "text": b"not an image at all",
    "signature only": SIGNATURE,
    "bomb of 30,000 x 30,000": encoded(Image.new("1", (30_000, 30_000))),
    "bomb of 2 billion squared": png(2**31 - 1, 2**31 - 1),
    "bomb that inflates": png(16, 16, pixels=zlib.compress(bytes(10**8)))[:-40],
    "jpeg of 65,535 x 65,535": jpeg_of(65_535, 65_535),
    "gif of 65,535 x 65,535": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20),
    "bmp of 2 billion": b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 2**31 - 1, 2**20, 1, 24, 0),
    "no width": png(0, 16),
    "no pixels": SIGNATURE + png(8, 8)[8:33] + chunk(b"IEND", b""),
    "pixels that are not a zlib stream": png(8, 8, pixels=b"\xff" * 64),
    "chunk of 2 GiB": SIGNATURE + struct.pack(">I4s", 2**31, b"IHDR") + bytes(64),
    "first chunk is not IHDR": SIGNATURE + chunk(b"tEXt", b"a\0b") + png(8, 8)[8:],
    "PNG cut in half": PNG[: len(PNG) // 2],
    "PNG without its end": PNG[:-12],
    "PNG with a flipped bit": PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:],
    "JPEG cut in half": JPEG[: len(JPEG) // 2],
    "JPEG without its end": JPEG[:-2],
    "JPEG cut in its header": JPEG[:100],
    "JPEG of markers only": b"\xff\xd8" + b"\xff" * 1000,
    "JPEG segment to nowhere": b"\xff\xd8\xff\xe0\xff\xff" + bytes(100),
    "alpha": encoded(NOISE.convert("RGBA")),
    "grey and alpha": encoded(NOISE.convert("LA")),
    "transparent colour": encoded(NOISE, transparency=(1, 2, 3)),
    "palette with transparency": encoded(NOISE.convert("P"), transparency=3),
    "16-bit grey": encoded(Image.fromarray(np.zeros((4, 4), np.uint16))),
    "16-bit RGB": png(4, 4, depth=16),
    "3 bits": png(4, 4, depth=3),
    "colour type 7": png(4, 4, colour=7),
    "CMYK": encoded(NOISE.convert("CMYK"), format="JPEG"),
    "CMYK TIFF": encoded(NOISE.convert("CMYK"), format="TIFF"),
    "floating point": encoded(Image.fromarray(np.zeros((4, 4), np.float32)), format="TIFF"),
    "animated GIF": animated("GIF"),
    "animated PNG": animated("PNG"),
    "animated WebP": animated("WEBP"),
    "pages of a TIFF": animated("TIFF"),
    "rotated JPEG": rotated("JPEG"),
    "mirrored JPEG": rotated("JPEG", 2),
    "rotated PNG": rotated("PNG"),
    "rotated TIFF": rotated("TIFF"),
    "JPEG rotated by XMP": with_xmp("JPEG", 6),
    "PNG rotated by XMP": with_xmp("PNG", 3),
    "PNG rotated by a raw profile": with_text("Raw profile type exif", raw_profile(8)),
    "GIF": encoded(NOISE, format="GIF"),
    "PPM": encoded(NOISE, format="PPM"),
    "ICO": encoded(NOISE, format="ICO"),
}
"""Images that must be refused by a message that names them."""

WELCOME = {
    "1 x 1": encoded(Image.new("RGB", (1, 1))),
    "1 pixel high": encoded(Image.new("RGB", (4000, 1))),
    "grey": encoded(NOISE.convert("L")),
    "grey JPEG": encoded(NOISE.convert("L"), format="JPEG"),
    "palette": encoded(NOISE.convert("P")),
    "1 bit": encoded(NOISE.convert("1")),
    "progressive JPEG": encoded(NOISE, format="JPEG", progressive=True),
    "with an ICC profile": encoded(NOISE, icc_profile=bytes(3000)),
    "JPEG with an ICC profile": encoded(NOISE, format="JPEG", icc_profile=bytes(3000)),
    "upright by EXIF": rotated("JPEG", 1),
    "JPEG upright by XMP": with_xmp("JPEG", 1),
    "PNG upright by XMP": with_xmp("PNG", 1),
    "PNG with a comment": with_text("Comment", "tiff:Orientation"),
    "EXIF that is nonsense": encoded(NOISE, format="JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "JPEG with bytes behind it": JPEG + b"maker's notes" * 50,
    "WebP": encoded(NOISE, format="WEBP"),
    "BMP": encoded(NOISE, format="BMP"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_image_is_refused_by_name(kind: str) -> None:
    with pytest.raises(DataError, match=r"^rain/odd\.png: "):
        inspect(HOSTILE[kind], "rain/odd.png")


@pytest.mark.parametrize("kind", WELCOME)
def test_an_image_that_is_only_unusual_is_read(kind: str) -> None:
    height, width = decode_image(WELCOME[kind], kind).shape[:2]
    assert inspect(WELCOME[kind], kind).size == (width, height)


def test_the_reason_is_the_same_every_time() -> None:
    """It is part of the manifest, and Pillow's message contains an address that differs."""
    with pytest.raises(DataError) as raised:
        decode_image(HOSTILE["text"], "x.png")
    assert str(raised.value) == "x.png: not a readable image (no PNG, JPEG, BMP, WEBP, TIFF)."


def test_postscript_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked up once per process
    with pytest.raises(DataError, match="not a readable image"):
        inspect(encoded(NOISE, format="EPS"), "evil.png")
    assert not started.exists()


def test_a_changed_byte_anywhere_in_a_png_is_found() -> None:
    for at in range(len(PNG)):
        damaged = PNG[:at] + bytes([PNG[at] ^ 16]) + PNG[at + 1 :]
        with pytest.raises(DataError):
            inspect(damaged, "x.png")


def test_none_of_them_takes_a_gibibyte(tmp_path: Path) -> None:
    for number, data in enumerate(HOSTILE.values()):
        (tmp_path / f"{number:02d}.png").write_bytes(data)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from derain.data.images.decode import inspect\n"
        "from derain.errors import DataError\n"
        "refused = 0\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        inspect(path.read_bytes(), path.name)\n"
        "    except DataError:\n"
        "        refused += 1\n"
        # ru_maxrss would start at the peak of the parent process
        "status = Path('/proc/self/status').read_text()\n"
        "print(refused, int(status.split('VmHWM:')[1].split()[0]) * 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    refused, memory = map(int, done.stdout.split())
    assert refused == len(HOSTILE)
    assert memory < MEMORY_LIMIT
