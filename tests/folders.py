"""Folders of small noise images, prepared datasets without any, digests of a folder's files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from derain.data.prepared.index import INDEX, write_index
from derain.data.prepared.manifest import Manifest, write_manifest

PairedFolder = Callable[..., Path]
"""Type of the fixture `paired_folder`: `make(count, name=, width=, height=)`."""


def noise_image(*seed: int, width: int, height: int) -> Image.Image:
    """A different RGB image for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_pairs(source: Path, count: int, *, width: int, height: int) -> Path:
    """Pairs `rain/NNN.png` and `clean/NNN.png`, no two images alike."""
    for side in ("rain", "clean"):
        (source / side).mkdir(parents=True)
        for number in range(count):
            image = noise_image(number, side == "rain", width=width, height=height)
            image.save(source / side / f"{number:03d}.png")
    return source


def write_scenes(source: Path, scenes: int, rains: int, *, width: int, height: int) -> Path:
    """Scenes of several rainy images and one clean image, in the layout of Rain14000."""
    (source / "rainy_image").mkdir(parents=True)
    (source / "ground_truth").mkdir()
    for scene in range(1, scenes + 1):
        for number in range(rains + 1):
            name = f"rainy_image/{scene}_{number}.jpg" if number else f"ground_truth/{scene}.jpg"
            image = noise_image(scene, number, width=width, height=height)
            image.save(source / name, quality=95)
    return source


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path below it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_prepared(folder: Path, dataset: str, split: str) -> str:
    """A prepared dataset without pairs; returns its folder."""
    folder.mkdir(parents=True)
    index = write_index(folder / INDEX, [])
    write_manifest(folder, Manifest(dataset, split, 0, 0, (), index, "", {}))
    return str(folder)
