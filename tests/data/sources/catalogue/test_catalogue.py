"""Every row of the catalogue: the pairs of a miniature in its layout are found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derain.data.images.decode import decode_image, read_image
from derain.data.prepared.shards import read_member, write_shards
from derain.data.sources.catalogue import CATALOGUE, find_dataset, names_of
from derain.data.sources.discover import find_pairs
from derain.data.sources.layouts import Dataset, Layout, drawing, layouts_of
from derain.errors import DataError
from tests.data.miniatures import build

NAMES = [
    *("rain13k", "rain100h", "rain100l", "rain200h", "rain200l", "rain800", "rain1200"),
    *("rain14000", "rain12", "hq-rain", "outdoor-rain", "raincityscapes", "rainds-syn"),
    *(
        "synrain-13k",
        "4k-rain13k",
        "spa-data",
        "mpid",
        "nturain-r",
        "gt-rain",
        "raindrop",
        "rainds-real",
    ),
    *("realrain-1k-l", "realrain-1k-h", "lhp-rain", "sirr", "paired", "unpaired"),
]
ROWS = [(row, layout) for row in CATALOGUE.values() for layout in row.layouts]


def test_all_datasets_are_listed() -> None:
    assert list(CATALOGUE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_complete(name: str) -> None:
    row = CATALOGUE[name]
    assert row.about
    assert row.where
    assert row.terms
    if not row.any_split:
        assert {layout.split for layout in row.layouts} == set(row.splits)
    for layout in row.layouts:
        assert layout.rain in drawing(row)
        assert all(clean in drawing(row) for clean in layout.clean)


@pytest.mark.parametrize(
    ("row", "layout"), ROWS, ids=[f"{r.name}-{x.split}-{i}" for i, (r, x) in enumerate(ROWS)]
)
def test_a_miniature_is_found_and_written(row: Dataset, layout: Layout, tmp_path: Path) -> None:
    made = build(layout, tmp_path / "source")
    found = find_pairs(row.name, made.source, layout.split)
    assert {pair.rain: pair.clean for pair in found.pairs} == made.pairs
    assert not found.unpaired
    assert len({pair.key for pair in found.pairs}) == len(made.pairs)
    assert not [pair.key for pair in found.pairs if "." in pair.key or "/" in pair.key]
    assert all(set(pair.labels) == set(layout.labels) for pair in found.pairs)
    clutter = "deep/er/down/rainstreak-1.png"
    assert found.unrecognised == [f"{layout.folder}/{clutter}" if layout.folder else clutter]
    assert len(found.notes) == 2 + bool(row.splits.get(layout.split, ()))
    assert found.notes[-1].startswith("Other files, which were not used: 1 .txt")
    written = write_shards(found.pairs, made.source, tmp_path / "a.tar")
    assert not written.quarantined
    assert written.rows.column("rain_source").to_pylist() == [pair.rain for pair in found.pairs]


@pytest.mark.parametrize(
    ("row", "layout"),
    [(row, layout) for row, layout in ROWS if layout.folder],
    ids=[f"{r.name}-{x.split}-{i}" for i, (r, x) in enumerate(ROWS) if x.folder],
)
def test_the_source_may_be_the_folder_of_the_split(
    row: Dataset, layout: Layout, tmp_path: Path
) -> None:
    made = build(layout, tmp_path)
    inside = find_pairs(row.name, tmp_path / layout.folder, layout.split)
    assert {f"{layout.folder}/{pair.rain}" for pair in inside.pairs} == set(made.pairs)


@pytest.mark.parametrize(("name", "clean_is_left"), [("rain800", True), ("rain1200", False)])
def test_side_by_side_images_are_split_without_loss(
    name: str, clean_is_left: bool, tmp_path: Path
) -> None:
    row = CATALOGUE[name]
    made = build(row.layouts[0], tmp_path)
    found = find_pairs(name, tmp_path)
    written = write_shards(found.pairs, made.source, tmp_path / "a.tar")
    with (tmp_path / "a.tar").open("rb") as tar:
        for item in written.rows.to_pylist():
            whole = read_image(tmp_path / item["rain_source"])
            left, right = np.split(whole, 2, axis=1)
            clean, rain = (left, right) if clean_is_left else (right, left)
            for side, expected in (("rain", rain), ("clean", clean)):
                data = read_member(tar, item[f"{side}_offset"], item[f"{side}_length"])
                assert np.array_equal(decode_image(data, side), expected)
                assert item[f"{side}_member"].endswith(f".{side}.png")


def test_rain1200_carries_its_densities(tmp_path: Path) -> None:
    (layout,) = (row for row in CATALOGUE["rain1200"].layouts if row.labels)
    for density in ("Heavy", "Medium", "Light"):
        folder = layout.rain.replace("{density}", density)
        build(replace(layout, rain=folder, labels=()), tmp_path)
    pairs = find_pairs("rain1200", tmp_path).pairs
    assert {pair.key.split("-")[0]: pair.labels["density"] for pair in pairs} == {
        "Rain_Heavy": "heavy",
        "Rain_Medium": "medium",
        "Rain_Light": "light",
    }


def test_rain14000_is_split_by_clean_image(tmp_path: Path) -> None:
    rows = [row for row in CATALOGUE["rain14000"].layouts if not row.folder]
    for layout in rows:
        build(layout, tmp_path)
    cleans = {
        row.split: {pair.clean for pair in find_pairs("rain14000", tmp_path, row.split).pairs}
        for row in rows
    }
    assert not cleans["train"] & cleans["test"]
    assert not cleans["train11200"] & cleans["test2800"]
    assert all(cleans.values())


def test_new_and_old_release_in_one_folder_are_distinguished(tmp_path: Path) -> None:
    old, new = (row for row in CATALOGUE["rain100l"].layouts[:2])
    build(old, tmp_path)
    (tmp_path / "RainTrainL" / "norain-1x2.png").write_bytes(b"of the new release, alone")
    assert {pair.rain for pair in find_pairs("rain100l", tmp_path).pairs} == {
        f"RainTrainL/rain-{number}.png" for number in (5, 6, 7)
    }
    build(new, tmp_path / "other")
    assert all("x2" in pair.rain for pair in find_pairs("rain100l", tmp_path / "other").pairs)


def test_gt_rain_prefers_the_clean_frame_of_the_same_index(tmp_path: Path) -> None:
    for name in ("s/w-R-000", "s/w-R-001", "s/w-C-000", "g/w-R-000", "g/w-R-001"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for number in range(2):
        (tmp_path / "g" / f"w-C-00{number}.png").write_bytes(b"x")
    pairs = {pair.rain: pair.clean for pair in find_pairs("gt-rain", tmp_path).pairs}
    assert pairs == {
        "s/w-R-000.png": "s/w-C-000.png",
        "s/w-R-001.png": "s/w-C-000.png",
        "g/w-R-000.png": "g/w-C-000.png",
        "g/w-R-001.png": "g/w-C-001.png",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rain1400", "rain14000"), ("Rain_14000", "rain14000"), ("DDN-Data", "rain14000"),
        ("did-mdn", "rain1200"), ("rain100-h", "rain100h"), ("Rain100 L", "rain100l"),
        ("SPA", "spa-data"), ("GTRain", "gt-rain"), ("RainDS", "rainds-syn"), ("PAIRED", "paired"),
    ],
)  # fmt: skip
def test_a_dataset_has_other_names(name: str, expected: str) -> None:
    assert find_dataset(name).name == expected


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("rain100hh", "rain100h"), ("rain13", "rain13k"), ("outdor-rain", "outdoor-rain")],
)
def test_the_nearest_name_is_suggested(name: str, nearest: str) -> None:
    with pytest.raises(DataError, match=rf"no such dataset\. Did you mean .*{nearest}"):
        find_dataset(name)
    with pytest.raises(DataError, match=r"zzz: no such dataset\. Known: rain13k"):
        find_dataset("zzz")


def test_no_two_datasets_share_a_name() -> None:
    names = [name for row in CATALOGUE.values() for name in {*names_of(row)}]
    assert len(names) == len({*names})


def test_rainds_has_scenes_with_and_without_a_prefix(tmp_path: Path) -> None:
    for name in ("rd-rain-1", "pie-rd-rain-2"):
        clean = name.replace("rd-rain", "norain")
        for path in (f"rainstreak_raindrop/{name}.png", f"gt/{clean}.png"):
            (tmp_path / "train" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "train" / path).touch()
    pairs = find_pairs("rainds", tmp_path, "train_both").pairs
    assert [pair.clean for pair in pairs] == ["train/gt/norain-1.png", "train/gt/pie-norain-2.png"]


def test_two_copies_side_by_side_are_one_rainy_image(tmp_path: Path) -> None:
    (layout,) = layouts_of(CATALOGUE["rain800"], "real")
    made = build(layout, tmp_path)
    found = find_pairs("rain800", tmp_path, "real")
    written = write_shards(found.pairs, made.source, tmp_path / "a.tar")
    assert not written.quarantined
    assert set(written.rows.column("clean_member").to_pylist()) == {None}
    with (tmp_path / "a.tar").open("rb") as tar:
        item = written.rows.to_pylist()[0]
        data = read_member(tar, item["rain_offset"], item["rain_length"])
    left = np.split(read_image(tmp_path / item["rain_source"]), 2, axis=1)[0]
    assert np.array_equal(decode_image(data, "rain"), left)
