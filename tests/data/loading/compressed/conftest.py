"""A dataset of images that compress, of sizes that no tile divides."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks._small import write_dataset
from derain.data.prepared.manifest import Prepared
from derain.data.synthetic.synthesis import bundled_photographs
from tests.folders import noise_image

SIZES = ((70, 101), (33, 65), (9, 20), (64, 128), (32, 64), (1, 1), (100, 31))
"""Heights and widths; a tile is 32 rows of 64 pixels."""


@pytest.fixture
def odd_set(tmp_path: Path) -> Prepared:
    """Photographs with bright streaks, the last two grey and noise, in two shards."""
    for side in ("rain", "clean"):
        (tmp_path / "odd" / side).mkdir(parents=True)
    with Image.open(bundled_photographs() / "stream.jpg") as image:
        photograph = np.asarray(image.convert("RGB"))
    for number, (height, width) in enumerate(SIZES):
        clean = photograph[20 * number :][:height, :width]
        rain = clean.copy()
        rain[::7, ::3] |= 0x80
        save(tmp_path / "odd", number, Image.fromarray(rain), Image.fromarray(clean))
    grey = Image.fromarray(photograph[:50, :77]).convert("L")
    save(tmp_path / "odd", len(SIZES), grey.point(lambda level: 255 - level), grey)
    noise = [noise_image(seed, width=70, height=40) for seed in (0, 1)]
    save(tmp_path / "odd", len(SIZES) + 1, *noise)
    return write_dataset(tmp_path / "odd", tmp_path / "odd-prepared")


def save(folder: Path, number: int, rain: Image.Image, clean: Image.Image) -> None:
    rain.save(folder / "rain" / f"{number}.png")
    clean.save(folder / "clean" / f"{number}.png")
