"""The images of a sweep's report: what the best and the worst trial make of validation images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from derain.config import Config
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.roles import names_of, open_validation
from derain.evaluation.gallery import RAINY, GalleryImage, choose, metric_label, write_gallery
from derain.evaluation.protocols import identity
from derain.inference.predictor import Predictor
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.tune.report.by_image import Image, image_scores
from derain.tune.report.compare import Row

PAGE = "gallery.html"
GRID = "gallery.png"
PAGE_IMAGES = 12
"""Images of the page; both networks derain each of them, on the CPU."""
GRID_IMAGES = 4
PANEL_INCHES = 3.2
TITLE_CHARACTERS = 40


def write(config: Config, ranking: Sequence[Row], folder: Path) -> None:
    """Write the page and the grid of a sweep with this ranking, best first, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    images = derain_images(config, ranking)
    write_page(config, images, folder / PAGE)
    draw_grid(images, folder / GRID)


def derain_images(config: Config, ranking: Sequence[Row]) -> list[GalleryImage]:
    """Images of the first validation dataset with the outputs of the best and the worst trial.

    At most `PAGE_IMAGES`, which `choose` takes by the metric of the best trial.
    """
    assert config.sweep is not None
    trials = [ranking[0], ranking[-1]] if len(ranking) > 1 else [ranking[0]]
    networks = {trial["name"]: _predictor(trial) for trial in trials}
    scores = {trial["name"]: image_scores(trial) for trial in trials}
    datasets = open_validation(config.data)
    dataset, name = datasets[0], names_of(datasets)[0]
    (pixels,) = open_all_pixels([dataset], config.data, at_once=True)
    keys = dataset.column("key").tolist()
    scored = [at for at, key in enumerate(keys) if (name, key) in scores[trials[0]["name"]]]
    best = [scores[trials[0]["name"]][name, keys[at]]["metrics"] for at in scored]
    picks = choose([metrics[config.sweep.metric] for metrics in best], PAGE_IMAGES)
    chosen = [scored[pick] for pick in picks]
    return [_image(name, keys[at], pixels[at], networks, scores) for at in chosen]


def write_page(config: Config, images: Sequence[GalleryImage], path: Path) -> None:
    """The page in which the images can be compared."""
    assert config.sweep is not None
    metric = metric_label(config.sweep.metric)
    dataset = images[0].dataset
    notes = (
        f"At most {PAGE_IMAGES} images of {dataset}: those with the highest and the lowest "
        f"{metric} of the best trial, and others at even distances in rank between them.",
        f"Metrics under the protocol {identity(config.eval.protocol)}.",
    )
    title = f"Sweep {config.name}: {' and '.join(images[0].outputs)}"
    write_gallery(path, title, images, count=len(images), notes=notes)


def draw_grid(images: Sequence[GalleryImage], path: Path) -> None:
    """A row for each of `GRID_IMAGES` images from the best to the worst, with their metrics."""
    picks = np.linspace(0, len(images) - 1, min(GRID_IMAGES, len(images))).round().astype(int)
    rows = [images[pick] for pick in picks.tolist()]
    columns = len(rows[0].images())
    heights = [PANEL_INCHES * image.rain.shape[0] / image.rain.shape[1] + 0.6 for image in rows]
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(PANEL_INCHES * columns, sum(heights)),
        height_ratios=heights,
        dpi=120,
        layout="constrained",
        squeeze=False,
    )
    for panels, image in zip(axes, rows, strict=True):
        panels[0].set_ylabel(_shortened(image.key), fontsize=8)
        for panel, (name, pixels) in zip(panels, image.images().items(), strict=True):
            panel.imshow(pixels, interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.set_title(_caption(name, image.metrics.get(name, {})), fontsize=8, loc="left")
    figure.savefig(path)
    plt.close(figure)


def _predictor(trial: Row) -> Predictor:
    network = restore_network(checkpoint.load(trial["checkpoint"]), trust=True)
    return Predictor(network, "cpu")


def _image(
    dataset: str,
    key: str,
    pair: np.ndarray,
    networks: Mapping[str, Predictor],
    scores: Mapping[str, Mapping[Image, Mapping[str, Any]]],
) -> GalleryImage:
    """An image with each network's output, and the metrics that each trial's results have of it."""
    rain, clean = pair
    scored = {name: of[dataset, key] for name, of in scores.items() if (dataset, key) in of}
    metrics = {name: image["metrics"] for name, image in scored.items()}
    for image in scored.values():  # the same in all
        metrics[RAINY] = image["input"]
    outputs = {name: network.derain(rain) for name, network in networks.items()}
    return GalleryImage(dataset, key, rain, clean, outputs, metrics)


def _caption(name: str, metrics: Mapping[str, float]) -> str:
    values = (f"{metric_label(metric)} {value:.4g}" for metric, value in metrics.items())
    return f"{_shortened(name)}\n{', '.join(values)}"


def _shortened(name: str) -> str:
    return name if len(name) <= TITLE_CHARACTERS else f"{name[: TITLE_CHARACTERS - 1]}…"
