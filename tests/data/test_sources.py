"""Paired folders: names are found, partners matched, keys made safe."""

import json
from pathlib import Path

import pytest

from derain.data.sources import FOLDER_NAMES, paired, slugs
from derain.errors import DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.mark.parametrize(("rain", "clean"), FOLDER_NAMES)
def test_usual_folder_names_are_found(tmp_path: Path, rain: str, clean: str) -> None:
    touch(tmp_path / rain / "b.png", tmp_path / clean / "B.jpg", tmp_path / rain / "Thumbs.db")
    (pair,), unpaired = paired(tmp_path)
    assert (pair.rain, pair.clean) == (tmp_path / rain / "b.png", tmp_path / clean / "B.jpg")
    assert not unpaired


def test_pictures_without_partner_are_reported(tmp_path: Path) -> None:
    touch(tmp_path / "rain/a.png", tmp_path / "clean/a.png", tmp_path / "rain/b.png")
    touch(tmp_path / "clean/c.png", tmp_path / "rain/d.png", tmp_path / "rain/d.jpg")
    touch(tmp_path / "clean/d.png")
    pairs, unpaired = paired(tmp_path)
    assert [pair.key for pair in pairs] == ["a"]
    assert {item.path.name for item in unpaired} == {"b.png", "c.png", "d.png", "d.jpg"}


def test_labels_reach_the_pairs(tmp_path: Path) -> None:
    touch(tmp_path / "rain/a.png", tmp_path / "clean/a.png")
    (tmp_path / "labels.json").write_text(json.dumps({"a.png": {"density": "light"}}))
    assert paired(tmp_path)[0][0].labels == {"density": "light"}


def test_keys_have_no_dots_and_do_not_collide() -> None:
    keys = slugs(["norain-1.5x", "norain-1 5x", "norain-1-5x", "é", "x" * 200])
    assert len(set(keys)) == 5
    assert all("." not in key and len(key) <= 90 for key in keys)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["other/a.png"], "expected two sub-folders"),
        (["rain/a.png", "clean/b.png"], "no file in rain/ has a partner"),
    ],
)
def test_folders_that_do_not_fit_are_named(tmp_path: Path, files: list[str], expected: str) -> None:
    touch(*(tmp_path / name for name in files))
    with pytest.raises(DataError, match=expected):
        paired(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        paired(tmp_path / "none")
