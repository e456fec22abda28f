"""labels.json: how an image is looked up in it, and that nothing of it is lost without a word."""

import json
from pathlib import Path
from typing import Any

import pytest

from derain.data.sources.discover import find_pairs
from derain.data.sources.labels import Labels
from derain.errors import DataError
from tests.data.sources.touched import pair_of, touch


def write(source: Path, labels: dict[str, Any]) -> None:
    (source / "labels.json").write_text(json.dumps(labels))


def test_partial_labels_are_noted_and_every_image_has_the_same_keys(tmp_path: Path) -> None:
    """Case 10: readers take the type of a column from the first samples."""
    for n in range(12):
        pair_of(tmp_path, f"{n:02d}.png")
    write(tmp_path, {f"{n:02d}.png": {"density": "heavy"} for n in range(8, 12)})
    found = find_pairs("paired", tmp_path)
    assert [pair.labels["density"] for pair in found.pairs] == [""] * 8 + ["heavy"] * 4
    assert found.notes == ("4 of 12 images have the label density; it is empty for the others.",)


def test_unknown_values_are_the_same_as_none(tmp_path: Path) -> None:
    pair_of(tmp_path, "1.png")
    pair_of(tmp_path, "2.png")
    write(tmp_path, {"1": {"density": None}, "2": {"density": "light", "wind": 3}})
    found = find_pairs("paired", tmp_path)
    assert [dict(pair.labels) for pair in found.pairs] == [
        {"density": "", "wind": ""},
        {"density": "light", "wind": "3"},
    ]
    assert len(found.partial_labels) == 2


def test_entries_that_name_no_image_are_counted(tmp_path: Path) -> None:
    pair_of(tmp_path)
    touch(tmp_path / "input/alone.png")
    write(tmp_path, {"1.png": {"a": "b"}, "2.png": {"a": "b"}, "alone.png": {"a": "c"}})
    assert find_pairs("paired", tmp_path).notes == (
        "Entries of labels.json that are the name of no image: 1, such as 2.png.",
    )


def test_labels_in_another_folder_are_named(tmp_path: Path) -> None:
    pair_of(tmp_path)
    (tmp_path / "input/labels.json").write_text("{}")
    (note,) = find_pairs("paired", tmp_path).notes
    assert "because they are not in SOURCE: 1, such as input/labels.json" in note


def test_labels_of_a_nested_layout_may_be_at_the_top(tmp_path: Path) -> None:
    pair_of(tmp_path / "train", "1.png")
    pair_of(tmp_path / "train", "2.png")
    write(tmp_path, {"train/input/1.png": {"d": "top"}, "2.png": {"d": "top"}})
    write(tmp_path / "train", {"2.png": {"d": "near"}})
    found = find_pairs("paired", tmp_path)
    assert [pair.labels["d"] for pair in found.pairs] == ["top", "near"]
    assert not found.left_out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/1.png", "path"), ("a/1.jpg", "path without ending"), ("b/1.png", "name"),
        ("b/1.bmp", "name without ending"), ("A/1.PNG", "path"), ("x/É.png", "folded"),
    ],
)  # fmt: skip
def test_the_nearest_entry_is_taken(name: str, expected: str) -> None:
    entries = {
        "a/1.png": "path", "a/1": "path without ending", "1.png": "name",
        "1": "name without ending", "é": "folded",
    }  # fmt: skip
    labels = Labels("labels.json", {key: {"is": value} for key, value in entries.items()})
    assert labels.of(name) == {"is": expected}


def test_entries_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    pair_of(tmp_path, "1.png")
    write(tmp_path, {"1.bmp": {"a": "b"}, "1.jpg": {"a": "c"}})
    with pytest.raises(DataError, match="conflicting labels for 1"):
        find_pairs("paired", tmp_path)
    pair_of(tmp_path, "1.jpg")
    write(tmp_path, {"1.png": {"a": "b"}, "1.jpg": {"a": "c"}})
    labels = {pair.rain: pair.labels["a"] for pair in find_pairs("paired", tmp_path).pairs}
    assert labels == {"input/1.png": "b", "input/1.jpg": "c"}
