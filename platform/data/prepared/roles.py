"""The three roles of a run's datasets: training images, validation images, test images.

Validation chooses: the best checkpoint, the end of patience, the best trial, the champion. Test
reports, once, with what validation has chosen. If the config names no validation images, a part of
the training images is split off by clean image, so that no scene of a pair is in both.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from derain.config.data import DataConfig
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.prepared.naming import distinct_names
from derain.errors import DataError

ROLES = ("train", "validation", "test")


def open_training(data: DataConfig) -> list[Prepared]:
    """The datasets to train on, without the part that is split off for validation."""
    datasets = _open(data.train)
    if not splits_training(data):
        return datasets
    return [part for part, _ in _split(datasets, data.validation_share)]


def open_validation(data: DataConfig) -> list[Prepared]:
    """The datasets that choose checkpoints, trials and champions."""
    if data.choose_on_test:
        return _open(data.test)
    if data.validation:
        return _open(data.validation)
    split = _split(_open(data.train), data.validation_share)
    return [part for _, part in split if len(part)]


def open_test(data: DataConfig) -> list[Prepared]:
    """The datasets that report; none if the config names none."""
    return _open(data.test)


def open_role(data: DataConfig, role: str) -> list[Prepared]:
    """The datasets of one of `ROLES`."""
    return {"train": open_training, "validation": open_validation, "test": open_test}[role](data)


def splits_training(data: DataConfig) -> bool:
    """Whether validation images are split off the training images."""
    return not data.validation and not data.choose_on_test


def names_of(datasets: Sequence[Prepared]) -> list[str]:
    """A distinct name for each dataset of a role: that of its folder, longer where needed.

    A part of the training images says so.
    """
    names = distinct_names([dataset.folder for dataset in datasets])
    return [
        name if dataset.whole is None else f"{name} ({len(dataset)} of {len(dataset.whole)} pairs)"
        for name, dataset in zip(names, datasets, strict=True)
    ]


def _open(folders: Sequence[str]) -> list[Prepared]:
    return [open_prepared(folder) for folder in folders]


def _split(datasets: Sequence[Prepared], share: float) -> list[tuple[Prepared, Prepared]]:
    """Each dataset without its validation part, and that part.

    The clean images of all datasets are sorted by the sha256 of their file's sha256, and the first
    ones are taken: so the part depends neither on a seed nor on the order of the datasets, and a
    clean image that occurs in several of them is in one role only.

    Raises DataError if there are too few clean images for two parts.
    """
    for dataset in datasets:
        dataset.require_clean()
    columns = [dataset.arrow("clean_sha256") for dataset in datasets]
    digests = sorted(set().union(*(column.unique().to_pylist() for column in columns)), key=_rank)
    if len(digests) < 2:
        raise DataError(
            f"data.train has {len(digests)} distinct clean images; at least 2 are needed to split "
            "off images for validation. Name validation images with data.validation."
        )
    count = min(max(1, round(share * len(digests))), len(digests) - 1)
    chosen = pa.array(digests[:count])
    split = [_parts(dataset, chosen) for dataset in datasets]
    for dataset, (rest, _) in zip(datasets, split, strict=True):
        if not len(rest):
            raise DataError(
                f"{dataset.folder}: all of its images would be split off for validation. Name "
                "validation images with data.validation, or lower data.validation_share."
            )
    return split


def _parts(dataset: Prepared, chosen: pa.Array) -> tuple[Prepared, Prepared]:
    held = pc.is_in(dataset.arrow("clean_sha256"), chosen).to_numpy()
    return dataset.part(np.flatnonzero(~held)), dataset.part(np.flatnonzero(held))


def _rank(digest: str) -> str:
    return hashlib.sha256(digest.encode()).hexdigest()
