"""What registrations of runs and of model folders share."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from derain.config.data import DataConfig
from derain.data.loading.cache import PartPixels, TarPixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared
from derain.storage.files import is_remote


def first_rainy(dataset: Prepared, data: DataConfig) -> np.ndarray:
    """A batch of one rainy image of a dataset: NHWC, RGB, uint8."""
    if is_remote(dataset.folder):  # its images are in the cache, from scoring the run
        return open_all_pixels([dataset], data)[0][0][:1]
    tars = TarPixels(dataset.whole or dataset)
    return (PartPixels(tars, dataset) if dataset.whole else tars)[0][:1]


def combined(scored: Mapping[str, Any]) -> str:
    """One digest for all datasets that the metrics are averaged over."""
    digests = [item["manifest_sha256"] for item in scored["datasets"]]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
