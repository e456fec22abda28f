"""The clean images of a prepared dataset, each once, and their hashes."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from derain.data.images.decode import decode_image
from derain.data.images.hashes import ImageHash, hash_image
from derain.data.images.left_out import LeftOut, because, warn
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from derain.storage import files
from derain.storage.cores import available_cores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CleanImage:
    """A clean image of a prepared dataset, however many pairs it belongs to."""

    key: str
    """Key of its first pair."""
    source: str
    """Its file name in the source."""
    samples: int
    """How many pairs it belongs to."""
    shard: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class HashedDataset:
    """The clean images of a prepared dataset and their hashes, in index order."""

    prepared: Prepared
    images: list[CleanImage]
    hashes: list[ImageHash]
    left_out: list[LeftOut]
    """Images that cannot be read."""

    @property
    def perceptual(self) -> np.ndarray:
        """(images, words) uint64."""
        return np.stack([item.perceptual for item in self.hashes])


def hash_dataset(prepared: Prepared) -> HashedDataset:
    """Hash every clean image once, on all cores. Images that cannot be read are left out.

    Raises DataError if a pair has no clean image, or if no image can be read.
    """
    prepared.require_clean()
    images = clean_images(prepared)
    log.info("leaks: hashing %d clean images of %s", len(images), prepared.folder)
    with ThreadPoolExecutor(available_cores()) as pool:  # Pillow decodes outside the GIL
        hashes = list(pool.map(lambda image: _hash(prepared, image), images))
    left_out = [item for item in hashes if isinstance(item, LeftOut)]
    if len(left_out) == len(images):
        raise DataError(f"{prepared.folder}: no image can be read: {left_out[0].reason}")
    warn("leaks", left_out)
    return HashedDataset(
        prepared,
        [image for image, item in zip(images, hashes, strict=True) if isinstance(item, ImageHash)],
        [item for item in hashes if isinstance(item, ImageHash)],
        left_out,
    )


def _hash(prepared: Prepared, image: CleanImage) -> ImageHash | LeftOut:
    try:
        return hash_image(read_pixels(prepared, image))
    except DataError as error:
        return because(image.source, error)


def clean_images(prepared: Prepared) -> list[CleanImage]:
    """Every clean image once, in index order."""
    rows: Sequence[dict[str, Any]] = prepared.index.to_pylist()
    samples = Counter(row["clean_source"] for row in rows)
    images: dict[str, CleanImage] = {}
    for row in rows:
        if row["clean_source"] not in images:
            images[row["clean_source"]] = CleanImage(
                key=row["key"],
                source=row["clean_source"],
                samples=samples[row["clean_source"]],
                shard=row["shard"],
                offset=row["clean_offset"],
                length=row["clean_length"],
                sha256=row["clean_sha256"],
            )
    return list(images.values())


def read_pixels(prepared: Prepared, image: CleanImage) -> np.ndarray:
    """The pixels of a clean image: uint8, HWC, RGB. Raises DataError if it is damaged."""
    name = f"{prepared.folder / image.shard}: clean image of {image.key}"
    try:
        data = files.read_range(prepared.folder / image.shard, image.offset, image.length)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{name}: cannot be read ({reason}). Prepare the dataset again.") from None
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise DataError(f"{name}: damaged. Prepare the dataset again.")
    return decode_image(data, name)
