"""`predict` on a folder of JPEGs against a plain loop of read, derain, write; both in this process.

The model is loaded by both outside of the timed part. The network is a small one, for which files
matter, and a large one, for which they do not. The limit is the passes of the network, which keep
all cores busy, and what decoding and encoding take of one core, divided by the cores.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import ROUNDS, Row, compare, main
from derain.data.images.convert import read_odd
from derain.inference.predictor import Predictor, save_model_folder
from derain.models import build
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.verb import predict

IMAGES, SIZE_PX = 100, (481, 321)
NETWORKS = {
    "small": {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]},
    "large": {"width": 16, "encoder_blocks": [1, 1, 2], "decoder_blocks": [1, 1, 1]},
}


def write_photographs(folder: Path) -> None:
    """Smooth noise of the size of Rain100L's images, as JPEG."""
    folder.mkdir()
    for number in range(IMAGES):
        coarse = np.random.default_rng(number).integers(0, 256, (21, 31, 3), np.uint8)
        image = Image.fromarray(coarse).resize(SIZE_PX, Image.Resampling.BICUBIC)
        image.save(folder / f"{number:03d}.jpg", quality=92)


def rows(rounds: int = ROUNDS) -> Sequence[Row]:
    """Images a second with each network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder / "in")
        return [_row(folder, size, rounds) for size in NETWORKS]


def _row(folder: Path, size: str, rounds: int) -> Row:
    network = build("nafnet", **NETWORKS[size])
    model = save_model_folder(network.eval(), folder / size, "nafnet", NETWORKS[size])
    predictor, images = Predictor(network), sorted((folder / "in").iterdir())
    calls = 0

    def ours() -> float:
        nonlocal calls
        calls += 1
        return predict(str(model), images, folder / f"out-{size}-{calls}", device="cpu").seconds

    def plain() -> float:
        nonlocal calls
        calls += 1
        out = folder / f"out-{size}-{calls}"
        out.mkdir()
        began = time.monotonic()
        for path in images:
            with Image.open(path) as image:
                rain = np.asarray(image.convert("RGB"))
            Image.fromarray(predictor.derain(rain)).save(out / f"{path.stem}.png")
        return time.monotonic() - began

    def limit() -> float:
        passes = files = 0.0
        for path in images:
            began = time.monotonic()
            given = path.read_bytes()
            image = read_odd(given, path.name)
            rain = image.srgb
            decoded = time.monotonic()
            derained = predictor.derain(rain)
            passed = time.monotonic()
            Form().encode(image, derained, given)
            passes += passed - decoded
            files += decoded - began + time.monotonic() - passed
        return passes + files / torch.get_num_threads()

    peers = {"plain loop": plain}
    return compare(
        f"{size} network",
        "images/s",
        ours,
        peers,
        amount=len(images),
        limit=limit,
        rounds=rounds,
    )


if __name__ == "__main__":
    main(rows)
