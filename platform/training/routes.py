"""The expert of each training image: decided on whole images, once per dataset.

A crop, enlarged to CLIP's input size, shows wider streaks than the whole image, so its route would
differ. Routes are kept next to the pixel caches, named by the dataset and everything that decides
them.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from derain.data.loading.cache import Pixels
from derain.data.prepared.manifest import Prepared
from derain.models.shapes import image_batch
from derain.storage.atomic import new_file
from derain.storage.locks import locked
from derain.storage.node import cache_folder

log = logging.getLogger(__name__)

BATCH = 16
"""Images of equal size that go through the network together."""
RARE = 0.01
"""An expert with a smaller share of the images learns next to nothing."""


def takes_routes(network: nn.Module) -> bool:
    """Whether routes are decided before a network is trained: it has a `route_key`, not None."""
    return getattr(network, "route_key", None) is not None


def routes_of(
    network: Any,
    datasets: Sequence[Prepared],
    pixels: Sequence[Pixels],
    folder: str | None,
    device: torch.device,
) -> np.ndarray:
    """The expert of every sample, int64, by sample id over all datasets; of a network that
    `takes_routes`.

    `folder` is that of the pixel caches. The network is moved to `device`.
    """
    routes_folder = cache_folder(folder) / "routes"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # the folder is another user's
            # Other processes of this node wait, then read.
            stack.enter_context(locked(routes_folder / ".lock"))
        parts = [
            _dataset_routes(network, dataset, pairs, routes_folder, device)
            for dataset, pairs in zip(datasets, pixels, strict=True)
        ]
    routes = np.concatenate(parts)
    _log_counts(routes, len(network.experts))
    return routes


def rainy_batches(pixels: Pixels, device: torch.device) -> Iterator[tuple[list[int], Tensor]]:
    """Sample numbers and their whole rainy images, NCHW RGB in [0, 1].

    A batch has at most `BATCH` consecutive images, all of one size.
    """
    numbers: list[int] = []
    images: list[np.ndarray] = []
    for number in range(len(pixels)):
        image = pixels[number][0]
        if images and (images[0].shape != image.shape or len(images) == BATCH):
            yield numbers, _tensor(images, device)
            numbers, images = [], []
        numbers.append(number)
        images.append(np.asarray(image))
    yield numbers, _tensor(images, device)


def _dataset_routes(
    network: Any,
    dataset: Prepared,
    pixels: Pixels,
    folder: Path,
    device: torch.device,
) -> np.ndarray:
    name = hashlib.sha256(f"{dataset.sha256()} {network.route_key}".encode()).hexdigest()
    path = folder / f"{name}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    log.info("routes: routing the %d images of %s", len(pixels), dataset.folder)
    routes = np.empty(len(pixels), np.int64)
    network.to(device)
    for numbers, images in rainy_batches(pixels, device):
        routes[numbers] = network.perceive(images).cpu().numpy()
    try:
        with new_file(path, durable=False) as file:
            np.save(file, routes)
    except OSError as error:
        log.warning("routes: not kept for the next run (%s)", error)
    return routes


def _tensor(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return image_batch(torch.from_numpy(np.stack(images)).to(device))


def _log_counts(routes: np.ndarray, experts: int) -> None:
    counts = np.bincount(routes, minlength=experts)
    log.info("routes: %s images for the experts 0 to %d", counts.tolist(), experts - 1)
    for expert in np.flatnonzero(counts < RARE * len(routes)):
        log.warning(
            "routes: expert %d gets %d of %d images and will learn next to nothing. Try fewer "
            "prompts, or different ones.", expert, counts[expert], len(routes),
        )  # fmt: skip
