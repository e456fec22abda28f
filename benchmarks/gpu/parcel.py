"""Pairs of a folder in few bytes, exactly: to carry RainTrainL to a machine that has only a GPU.

    python -m benchmarks.gpu.parcel pack rain100l/train parcel.zip
    python -m benchmarks.gpu.parcel unpack parcel.zip PREPARED

The clean image, and the rainy one minus the clean one (modulo 256), as lossless WebP: 60 % of two
images. Unpacked they are PNG files and a prepared dataset beside them.
"""

import argparse
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._small import write_dataset
from derain.data.images.decode import read_image
from derain.data.sources.discover import find_pairs


def pack(source: Path, parcel: Path) -> None:
    """Write the pairs of a paired folder into a zip file."""
    pairs = find_pairs("paired", source).pairs
    paths = [(source / pair.rain, source / pair.clean) for pair in pairs]
    with ThreadPoolExecutor() as pool, zipfile.ZipFile(parcel, "w") as out:
        for pair, images in zip(pairs, pool.map(_packed, paths), strict=True):
            for name, data in zip(("clean", "rain"), images, strict=True):
                out.writestr(f"{name}/{Path(pair.clean).stem}.webp", data)


def unpack(parcel: Path, prepared: Path) -> None:
    """The pairs of a parcel as a prepared dataset, whose sources are beside it."""
    source = prepared.with_name(f"{prepared.name}-source")
    for name in ("clean", "rain"):
        (source / name).mkdir(parents=True)
    with zipfile.ZipFile(parcel) as archive:
        stems = sorted(Path(name).stem for name in archive.namelist() if name.startswith("clean"))
    with ThreadPoolExecutor() as pool:
        list(pool.map(_unpack_one, [(parcel, source, stem) for stem in stems]))
    write_dataset(source, prepared)


def _packed(paths: tuple[Path, Path]) -> tuple[bytes, bytes]:
    rain, clean = (read_image(path) for path in paths)
    return _webp(clean), _webp(rain - clean)


def _webp(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "WEBP", lossless=True, quality=80, method=4, exact=True)
    return out.getvalue()


def _unpack_one(work: tuple[Path, Path, str]) -> None:
    parcel, source, stem = work
    with zipfile.ZipFile(parcel) as archive:
        clean, difference = (
            np.asarray(Image.open(io.BytesIO(archive.read(f"{name}/{stem}.webp"))).convert("RGB"))
            for name in ("clean", "rain")
        )
    for name, image in (("clean", clean), ("rain", clean + difference)):
        Image.fromarray(image).save(source / name / f"{stem}.png", compress_level=1)


def main() -> None:
    """Pack or unpack, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.parcel")
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    (pack if options.what == "pack" else unpack)(options.source, options.target)


if __name__ == "__main__":
    main()
