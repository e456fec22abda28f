"""`evaluate` against the forward passes of the same images alone: what do the metrics add?

The network is the demo's, the images have the size of Rain100L's. Both contestants are the same
evaluation, and the peer has no metrics to compute.

workers     on Ray workers of one core each, by the time of day, from the first scored chunk to the
            last: the start of the workers, some seconds, is the same for both
processor   in this process, by the processor's time of all threads: what a worker with one core
            would take, whatever else the machine does

    python -m benchmarks.evaluate --images 500 --workers 2
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._small import write_dataset
from benchmarks.common import Row, compare, main
from derain import cluster
from derain.config import load_config
from derain.data.prepared.manifest import Prepared
from derain.inference.predictor import save_model_folder
from derain.pipelines.evaluate.methods import ModelMethod
from derain.pipelines.evaluate.work.run import Cost, score
from derain.pipelines.evaluate.work.scorer import Task
from derain.storage.node import CACHES
from derain.training.factory import build_network

CONFIG = Path(__file__).parents[1] / "configs" / "fclip_unet.yaml"
PROTOCOL = "rain13k"
SIZE_PX = (481, 321)
SCENES = 10
"""Different images; the others repeat them, because writing PNGs takes longer than reading them."""
NAME = "benchmark"


def rows(rounds: int, options: argparse.Namespace) -> list[Row]:
    """The two rows: images per second."""
    logging.getLogger("derain").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name, cluster.connected():
        folder = Path(name)
        os.environ[CACHES] = str(folder / "cache")
        dataset, method = _dataset(folder, options.images), _method(folder / "model")
        clocks = {
            f"{options.workers} workers": (options.workers, time.perf_counter),
            "processor": (1, time.process_time),
        }
        return [
            compare(
                f"{options.images} images, {name}",
                "images/s",
                partial(_seconds, method, dataset, (PROTOCOL,), *how),
                {"forward passes": partial(_seconds, method, dataset, (), *how)},
                amount=options.images,
                rounds=rounds,
            )
            for name, how in clocks.items()
        ]


def _seconds(
    method: ModelMethod,
    dataset: Prepared,
    protocols: tuple[str, ...],
    workers: int,
    clock: Callable[[], float],
) -> float:
    task = Task((method,), {NAME: dataset}, protocols)
    missing = {(0, NAME): list(range(len(dataset)))}
    first, count = 0.0, 0
    for _, record in score(task, missing, workers, "cpu", Cost()):
        if record.reason is not None or bool(record.values) != bool(protocols):
            raise RuntimeError(f"Not what was asked for: {record}")
        first, count = first or clock(), count + 1
    if count != len(dataset):
        raise RuntimeError(f"{count} of {len(dataset)} images were scored")
    return clock() - first


def _dataset(folder: Path, images: int) -> Prepared:
    """Pairs of smooth noise, with streaks and without."""
    width, height = SIZE_PX
    streaks = (np.arange(height)[:, None] + 3 * np.arange(width)) % 23 < 2
    for side in ("rain", "clean"):
        (folder / "source" / side).mkdir(parents=True)
    for number in range(images):
        of_scene, name = f"{number % SCENES:04d}.png", f"{number:04d}.png"
        if number >= SCENES:
            for side in ("rain", "clean"):
                (folder / "source" / side / name).hardlink_to(folder / "source" / side / of_scene)
            continue
        coarse = np.random.default_rng(number).integers(0, 186, (21, 31, 3), np.uint8)
        clean = Image.fromarray(coarse).resize(SIZE_PX, Image.Resampling.BICUBIC)
        clean.save(folder / "source" / "clean" / name)
        rainy = np.asarray(clean) + 70 * streaks[..., None].astype(np.uint8)
        Image.fromarray(rainy).save(folder / "source" / "rain" / name)
    return write_dataset(folder / "source", folder / "prepared")


def _method(folder: Path) -> ModelMethod:
    config = load_config(CONFIG, profile="demo")
    options = config.model.model_dump(exclude={"name"})
    network = build_network(config).eval()
    save_model_folder(network, folder, config.model.name, options)
    return ModelMethod(str(folder), "cpu")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    main(rows, _options())
