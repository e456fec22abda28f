"""A layout file of the user's own: its rows are like any other, its mistakes are named."""

from pathlib import Path

import pytest

from derain.data.sources.catalogue import find_dataset
from derain.data.sources.catalogue.own_file import read_rows
from derain.data.sources.discover import find_pairs
from derain.data.sources.layouts import drawing
from derain.errors import UsageError
from tests.data.sources.touched import touch

ROW = """
name: alley
title: The alley behind the laboratory
about: "real rain: one camera, three evenings"
splits: {train: [3, 4], evening: }
layouts:
  - {split: train, folder: day, rain: "wet/{scene:d}_{n:d}", clean: "dry/{scene:d}", labels: [n],
     only: {scene: [1, 2]}}
  - {split: evening, rain: "{n:d}.jpg", clean_half: left}
where: https://example.org/alley
terms: CC-BY-4.0
aliases: backyard
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(ROW)
    return path


def test_a_row_finds_pairs_like_any_other(file: Path, tmp_path: Path) -> None:
    names = ("wet/1_1.png", "wet/1_2.png", "dry/1.png", "wet/3_1.png", "dry/3.png")
    touch(*(tmp_path / "day" / name for name in names))
    row = find_dataset("Back-Yard", read_rows(file))
    found = find_pairs(row, tmp_path)
    assert [(pair.rain, pair.labels["n"]) for pair in found.pairs] == [
        ("day/wet/1_1.png", "1"),
        ("day/wet/1_2.png", "2"),
    ]
    assert found.notes[0].startswith("The alley behind the laboratory, train: 2 pairs were found, ")
    assert found.unrecognised == ["day/dry/3.png", "day/wet/3_1.png"]
    assert "day/ (train, scene 1-2)" in drawing(row)
    assert row.own is not None
    assert row.own["terms"] == "CC-BY-4.0"


def test_several_rows_are_a_list(file: Path) -> None:
    rows = "".join(f"    {line}\n" for line in ROW.replace("alley", "two", 1).strip().splitlines())
    one = "".join(f"    {line}\n" for line in ROW.strip().splitlines())
    text = f"datasets:\n  - {one.strip()}\n  - {rows.strip()}\n"
    file.write_text(text.replace("aliases: backyard", "folders: [x]"))
    assert [row.name for row in read_rows(file)] == ["alley", "two"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("title:", "titel:", r"mine\.yaml:3: unknown key `titel`"),
        ("name: alley", "name: rain1400", "its name rain1400 is that of the dataset rain14000"),
        ("aliases: backyard", "aliases: spa", "its name spa is that of the dataset spa-data"),
        ("name: alley", "name: a/b", r"mine\.yaml:2: `name`"),
        ("{train: [3, 4], evening: }", "{train: -1, evening: }", r"`splits\.train"),
        ("{train: [3, 4], evening: }", "{train: 3}", "expected a layout for each of the splits"),
        ("wet/{scene:d}_{n:d}", "wet/{scene:x}", "not a pattern of file names"),
        ("labels: [n]", "labels: [m]", "'m' is no field of the pattern"),
        ("only: {scene:", "only: {day:", "'day' is no field of the pattern"),
        ("dry/{scene:d}", "dry/{other}", "no field in common"),
        ("clean_half: left", "clean_half: up", "expected 'left'"),
        ("clean_half: left", 'clean_half: left, clean: "x/{n}"', "either clean or clean_half"),
        ("layouts:\n", "layouts: []\nx:\n", "unknown key `x`"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, expected: str, file: Path) -> None:
    file.write_text(ROW.replace(old, new, 1))
    with pytest.raises(UsageError, match=expected):
        read_rows(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: no such"):
        read_rows(tmp_path / "none.yaml")
