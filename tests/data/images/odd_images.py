"""Odd images as cameras, editors and tools write them; profiles; metadata of any size."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
from PIL import Image

from derain.data.images.png import SIGNATURE

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
NOISE = Image.fromarray(PIXELS)
DEEP = np.random.default_rng(1).integers(0, 2**16, (24, 32, 3), dtype=np.uint16)

_D50 = (0.9642, 1.0, 0.8249)
_PRIMARIES = {
    "Display P3": ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841)),
    "sRGB": ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)),
    "Adobe RGB": ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)),
}
"""Red, green and blue in XYZ, adapted to D50."""


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes, image: bytes | None = None) -> bytes:
    """A PNG with more chunks behind its header."""
    data = image or encoded(NOISE)
    return data[:33] + b"".join(chunks) + data[33:]


def png_of(*, depth: int = 8, colour: int = 2, methods: bytes = b"\0\0\0", pixels: bytes) -> bytes:
    """A PNG of 8 x 8 with correct CRCs around any content."""
    head = chunk(b"IHDR", struct.pack(">IIBB", 8, 8, depth, colour) + methods)
    return SIGNATURE + head + chunk(b"IDAT", pixels) + chunk(b"IEND")


def jpeg_with(*segments: tuple[int, bytes], image: bytes | None = None) -> bytes:
    """A JPEG with more segments in front."""
    data = image or encoded(NOISE, "JPEG", quality=90)
    more = (bytes([0xFF, at]) + struct.pack(">H", len(body) + 2) + body for at, body in segments)
    return data[:2] + b"".join(more) + data[2:]


def exif(value: int, *, kind: int = 3, count: int = 1, order: str = "<") -> bytes:
    """EXIF with an orientation of any type."""
    number = struct.pack(order + {1: "B", 3: "H", 4: "I", 9: "i"}[kind], value).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", 0x112, kind, count) + number
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", 1) + entry + bytes(4)


def profile(name: str = "Display P3") -> bytes:
    """A matrix ICC profile of version 2, with a gamma of 2.2 for each channel."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256))
    about = name.encode() + b"\0"
    text = b"desc" + bytes(4) + struct.pack(">I", len(about)) + about + bytes(78)
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": _xyz(_D50)}
    for key, colour in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _PRIMARIES[name], strict=True):
        tags[key] = _xyz(colour)
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    begin = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", begin + len(body), len(value))
        body += value.ljust(-(-len(value) // 4) * 4, b"\0")
    head = struct.pack(">I4xI4s4s4s", begin + len(body), 0x02200000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + table + body


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def deep_tiff(levels: np.ndarray = DEEP) -> bytes:
    return imagecodecs.tiff_encode(levels)


def camera_jpeg(image: Image.Image = NOISE) -> bytes:
    """A JPEG with a preview behind it."""
    small = image.resize((8, 6))
    return encoded(image, "MPO", save_all=True, append_images=[small], quality=92)


XMP = b"http://ns.adobe.com/xap/1.0/\0"
BIG = b"brush stroke 0001; " * 120_000

VARIANTS = {
    "PNG with a text of 2 MiB": png_with(chunk(b"zTXt", b"history\0\0" + zlib.compress(BIG))),
    "PNG with an international text of 2 MiB": png_with(
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(BIG))
    ),
    "PNG with XMP of 2 MiB": png_with(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" * 2**19))
    ),
    "PNG with 70 texts of 1 MiB": png_with(
        *(chunk(b"zTXt", b"k%d\0\0" % at + zlib.compress(bytes(2**20))) for at in range(70))
    ),
    "PNG with a profile of 2 MiB": png_with(
        chunk(b"iCCP", b"printer\0\0" + zlib.compress(bytes(2**21)))
    ),
    "PNG with a broken profile": png_with(chunk(b"iCCP", b"ICC\0\0garbage")),
    "PNG with a short profile": png_with(chunk(b"iCCP", b"ICC")),
    "PNG with a profile of method 1": png_with(chunk(b"iCCP", b"ICC\0\1" + zlib.compress(b"x"))),
    "PNG with a text of method 1": png_with(chunk(b"zTXt", b"k\0\1" + zlib.compress(b"x"))),
    "PNG with a broken text": png_with(chunk(b"zTXt", b"XML\0\0garbage")),
    "PNG with short chunks": png_with(
        *(chunk(kind, b"\0") for kind in (b"pHYs", b"gAMA", b"cHRM", b"sBIT", b"tIME", b"bKGD"))
    ),
    "PNG with empty chunks": png_with(
        *(chunk(kind) for kind in (b"sRGB", b"tEXt", b"eXIf", b"fcTL", b"iTXt", b"zTXt"))
    ),
    "PNG with EXIF that is junk": png_with(chunk(b"eXIf", b"junkjunkjunk")),
    "PNG with an unknown chunk": png_with(chunk(b"ABCD", b"xx")),
    "PNG with a text behind the pixels": encoded(NOISE)[:-12]
    + chunk(b"zTXt", b"XML\0\0" + zlib.compress(BIG))
    + chunk(b"IEND"),
    "PNG of one animation frame": png_with(chunk(b"acTL", struct.pack(">II", 1, 0))),
    "PNG, no palette": png_of(colour=3, pixels=zlib.compress(bytes(72))),
    "PNG of interlace 7": png_of(methods=b"\0\0\7", pixels=zlib.compress(bytes(200))),
    "PNG of filter method 1": png_of(methods=b"\0\1\0", pixels=zlib.compress(bytes(200))),
    "PNG of filter 9": png_of(pixels=zlib.compress(b"\x09" + bytes(199))),
    "PNG, Adam7": imagecodecs.png_encode(PIXELS),
    **{
        f"JPEG of orientation {value}": jpeg_with((0xE1, b"Exif\0\0" + exif(value)))
        for value in (0, 1, 3, 6, 9)
    },
    "JPEG of orientation 6 as a byte": jpeg_with((0xE1, b"Exif\0\0" + exif(6, kind=1))),
    "JPEG of orientation 6, signed": jpeg_with((0xE1, b"Exif\0\0" + exif(6, kind=9, order=">"))),
    "JPEG of no orientation": jpeg_with((0xE1, b"Exif\0\0" + exif(6, count=0))),
    "JPEG of two orientations": jpeg_with(
        (0xE1, b"Exif\0\0" + exif(1)), (0xE1, b"Exif\0\0" + exif(6))
    ),
    "JPEG with empty EXIF": jpeg_with((0xE1, b"Exif\0\0")),
    "JPEG with truncated EXIF": jpeg_with((0xE1, b"Exif\0\0" + exif(1)[:14])),
    "JPEG with XMP that is not UTF-8": jpeg_with((0xE1, XMP + b"<x>\xa8\xb8\xff</x>")),
    "JPEG of orientation 0 by XMP": jpeg_with((0xE1, XMP + b'<d tiff:Orientation="0"/>')),
    "JPEG with Photoshop junk": jpeg_with((0xED, b"Photoshop 3.0\x008BIM\x03\xed")),
    "JPEG with a short JFIF segment": jpeg_with((0xE0, b"JFIF\0")),
    "JPEG with a short Adobe segment": jpeg_with((0xEE, b"Adobe")),
    "JPEG with half a profile": jpeg_with((0xE2, b"ICC_PROFILE\0\1\2" + bytes(100))),
    "JPEG with an empty profile segment": jpeg_with((0xE2, b"ICC_PROFILE\0")),
    "JPEG with a profile segment of a number": jpeg_with((0xE2, b"ICC_PROFILE\0\1")),
    "JPEG with an MPF segment of junk": jpeg_with((0xE2, b"MPF\0junk")),
    "JPEG with a comment like a marker": jpeg_with((0xFE, b"\xff\xfe\0hello")),
    "JPEG of arithmetic coding": encoded(NOISE, "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1),
    "camera's JPEG with a preview": camera_jpeg(),
    "WebP of orientation 0": encoded(NOISE, "WEBP", exif=b"Exif\0\0" + exif(0)),
    "WebP of orientation 6": encoded(NOISE, "WEBP", exif=b"Exif\0\0" + exif(6)),
    "BMP of 32 bits": encoded(NOISE.convert("RGBA"), "BMP"),
    "TIFF of 16 bits": deep_tiff(),
    "grey TIFF of 16 bits": deep_tiff(DEEP[..., 0]),
    "TIFF, LZW": encoded(NOISE, "TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": encoded(NOISE, "TIFF", compression="jpeg"),
    "TIFF, YCbCr": encoded(NOISE.convert("YCbCr"), "TIFF"),
    "TIFF, Lab": encoded(NOISE.convert("LAB"), "TIFF"),
    "TIFF of orientation 0": encoded(NOISE, "TIFF", tiffinfo={274: 0}),
    "TIFF of orientation 8": encoded(NOISE, "TIFF", tiffinfo={274: 8}),
    "TIFF, fax": encoded(NOISE.convert("1"), "TIFF", compression="group4"),
    "grey PNG of 16 bits": imagecodecs.png_encode(np.ascontiguousarray(DEEP[..., 0])),
    "PNG of 16 bits": imagecodecs.png_encode(DEEP),
    "PNG in Display P3": encoded(NOISE, icc_profile=profile()),
}
"""One of each kind; some are read, some refused."""


def spoiled(data: bytes) -> bytes:
    """A PNG whose pixels break off late, with correct checksums."""
    at = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, at - 4)
    pixels = zlib.decompress(data[at + 4 : at + 4 + length])
    broken = zlib.compress(pixels[: len(pixels) // 2] + b"\xff" * (len(pixels) // 2))
    return data[: at - 4] + chunk(b"IDAT", broken) + chunk(b"IEND")
