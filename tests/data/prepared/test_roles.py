"""The roles of datasets: what is split off for validation, and by which images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._small import write_dataset
from derain.config.data import DataConfig
from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import (
    names_of,
    open_role,
    open_test,
    open_training,
    open_validation,
)
from derain.errors import DataError
from tests.folders import write_pairs


def scenes(folder: Path, first: int, count: int) -> str:
    """A prepared dataset of 3 pairs for each of `count` scenes; a scene is a clean image."""
    source = write_pairs(folder / "source", 3 * count, width=16, height=16)
    pool = write_pairs(folder / "pool", first + count, width=16, height=16)
    for number, file in enumerate(sorted((source / "clean").iterdir())):
        shutil.copy(pool / "clean" / f"{first + number // 3:03d}.png", file)
    return str(write_dataset(source, folder / "prepared").folder)


def config(*train: str, **values: Any) -> DataConfig:
    return DataConfig.model_validate({"train": train, **values})


def clean(datasets: list[Prepared]) -> set[str]:
    return {digest for each in datasets for digest in each.index.column("clean_sha256").to_pylist()}


def keys(datasets: list[Prepared]) -> list[str]:
    return [key for each in datasets for key in each.column("key").tolist()]


def test_validation_is_split_off_by_clean_image(tmp_path: Path) -> None:
    folder = scenes(tmp_path, 0, 10)
    data = config(folder, validation_share=0.2)
    train, validation = open_training(data), open_validation(data)
    assert len(clean(train)) == 8
    assert len(clean(validation)) == 2
    assert not clean(train) & clean(validation)
    assert len(keys(train)) == 24  # all three pairs of a scene go together
    assert sorted([*keys(train), *keys(validation)]) == [f"{n:03d}" for n in range(30)]
    assert open_test(data) == []


def test_datasets_that_share_scenes_are_split_alike(tmp_path: Path) -> None:
    one, other = scenes(tmp_path / "a", 0, 8), scenes(tmp_path / "b", 4, 8)
    both = config(one, other, validation_share=0.3)
    train, validation = open_training(both), open_validation(both)
    assert clean(train[:1]) & clean(train[1:])
    assert not clean(train) & clean(validation)
    turned = open_validation(config(other, one, validation_share=0.3))
    assert clean(turned) == clean(validation)


def test_a_part_has_an_identity_of_its_own(tmp_path: Path) -> None:
    folder = scenes(tmp_path, 0, 10)
    (whole,) = open_training(config(folder, validation=folder))
    assert whole.sha256() == whole.manifest.sha256()
    parts = [
        open_role(config(folder, validation_share=share), role)[0].sha256()
        for share in (0.2, 0.4)
        for role in ("train", "validation")
    ]
    assert len({whole.sha256(), *parts}) == 5
    again = open_validation(config(folder, validation_share=0.4))
    assert again[0].sha256() == parts[-1]
    assert names_of(again) == ["prepared (12 of 30 pairs)"]


def test_named_validation_leaves_the_training_images_whole(tmp_path: Path) -> None:
    train, other = scenes(tmp_path / "a", 0, 4), scenes(tmp_path / "b", 4, 2)
    data = config(train, validation=other, test=other)
    assert sorted(keys(open_training(data))) == [f"{n:03d}" for n in range(12)]
    assert str(open_validation(data)[0].folder) == other


def test_choosing_on_the_test_images_must_be_asked_for(tmp_path: Path) -> None:
    train, test = scenes(tmp_path / "a", 0, 4), scenes(tmp_path / "b", 4, 2)
    assert not clean(open_validation(config(train, test=test))) & clean(
        open_test(config(train, test=test))
    )
    data = config(train, test=test, choose_on_test=True)
    assert clean(open_validation(data)) == clean(open_test(data))
    assert len(open_training(data)[0]) == 12


def test_too_few_clean_images_cannot_be_split(tmp_path: Path) -> None:
    alone = scenes(tmp_path / "a", 0, 1)
    with pytest.raises(DataError, match=r"has 1 distinct clean images; at least 2"):
        open_training(config(alone))
    two = scenes(tmp_path / "b", 1, 2)
    data = config(two, validation_share=0.01)
    assert np.array_equal([len(open_training(data)[0]), len(open_validation(data)[0])], [3, 3])
    with pytest.raises(DataError, match="all of its images would be split off"):
        open_training(config(alone, two, validation_share=0.99))
