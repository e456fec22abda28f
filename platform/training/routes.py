"""Which expert each training image goes to: decided on whole images, once for a dataset.

A crop enlarged to what CLIP looks at shows wider streaks than its image, so the route of a crop
is another one. Routes are kept beside the pixel caches, named by the dataset and all that decides
them.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derain.data.loading.cache import Pixels, cache_folder
from derain.data.prepared.manifest import Prepared
from derain.models.shapes import image_batch
from derain.storage.atomic import new_file
from derain.storage.locks import locked

log = logging.getLogger(__name__)

BATCH = 16
"""Images of one size that are looked at together."""
RARE = 0.01
"""An expert with a smaller share of the images learns next to nothing."""


def routes_of(
    network: Any,
    datasets: Sequence[Prepared],
    pixels: Sequence[Pixels],
    folder: str | None,
    device: torch.device,
) -> np.ndarray | None:
    """The expert of every sample, int64 by sample id over all datasets; None for a network whose
    `route_key` is None or that has none: it decides by itself or has nothing to decide.

    `folder` is that of the pixel caches. Everything is on `device` while images are looked at.
    """
    key = getattr(network, "route_key", None)
    if key is None:
        return None
    place = cache_folder(folder) / "routes"
    with locked(place / ".lock"):  # the other processes of this node wait and read
        parts = [
            _of_dataset(network, key, dataset, pairs, place, device)
            for dataset, pairs in zip(datasets, pixels, strict=True)
        ]
    routes = np.concatenate(parts)
    _announce(routes, len(network.experts))
    return routes


def rainy_batches(pixels: Pixels, device: torch.device) -> Iterator[tuple[list[int], Tensor]]:
    """Whole rainy images, NCHW RGB in [0, 1], with their sample numbers: neighbours of one size
    together, at most `BATCH`."""
    numbers: list[int] = []
    held: list[np.ndarray] = []
    for number in range(len(pixels)):
        image = pixels[number][0]
        if held and (held[0].shape != image.shape or len(held) == BATCH):
            yield numbers, _tensor(held, device)
            numbers, held = [], []
        numbers.append(number)
        held.append(np.asarray(image))
    yield numbers, _tensor(held, device)


def _of_dataset(
    network: Any,
    key: str,
    dataset: Prepared,
    pixels: Pixels,
    place: Path,
    device: torch.device,
) -> np.ndarray:
    name = hashlib.sha256(f"{dataset.manifest.sha256()} {key}".encode()).hexdigest()
    path = place / f"{name}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    log.info("routes: looking at the %d images of %s", len(pixels), dataset.folder)
    routes = np.empty(len(pixels), np.int64)
    network.to(device)
    for numbers, images in rainy_batches(pixels, device):
        routes[numbers] = network.perceive(images).cpu().numpy()
    with new_file(path, durable=False) as file:
        np.save(file, routes)
    return routes


def _tensor(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return image_batch(torch.from_numpy(np.stack(images)).to(device))


def _announce(routes: np.ndarray, experts: int) -> None:
    counts = np.bincount(routes, minlength=experts)
    log.info("routes: %s images for the experts 0 to %d", counts.tolist(), experts - 1)
    for expert in np.flatnonzero(counts < RARE * len(routes)):
        log.warning(
            "routes: expert %d gets %d of %d images and will learn next to nothing; a prompt "
            "less, or other words, may serve better", expert, counts[expert], len(routes),
        )  # fmt: skip
