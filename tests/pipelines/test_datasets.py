"""`datasets`: the catalogue, what is found in a folder, and preparing what was found."""

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from derain.data.loading.cache import open_pixels
from derain.data.prepared.manifest import MANIFEST, open_prepared
from derain.data.sources.catalogue import CATALOGUE
from derain.errors import DataError, UsageError
from derain.pipelines.datasets import datasets
from derain.pipelines.prepare.options import dataset_row, parse_card
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from derain.storage import files
from tests.data.miniatures import build
from tests.folders import PairedFolder
from tests.storage.faulty_store import BUCKET, FaultyStore


def test_every_row_is_complete() -> None:
    rows = datasets()
    assert [row.name for row in rows] == list(CATALOGUE)
    assert all(row.layout and row.splits and row.terms and row.where for row in rows)
    assert not any(row.found for row in rows)
    (one,) = datasets(names=["rain800"])
    assert "clean | rainy, side by side" in one.layout


def test_datasets_under_a_root_are_found(tmp_path: Path) -> None:
    (sided,) = (row for row in CATALOGUE["rain12"].layouts if "rainy" in row.rain)
    build(sided, tmp_path / "RAIN-12")
    build(CATALOGUE["rain800"].layouts[0], tmp_path / "Rain800")
    found = {row.name: row.found for row in datasets(tmp_path) if row.found}
    assert found == {
        "rain12": {str(tmp_path / "RAIN-12"): {"test": 3}},
        "rain800": {str(tmp_path / "Rain800"): {"train": 3}},
    }


def test_a_root_may_be_in_an_object_store(object_store: FaultyStore, tmp_path: Path) -> None:  # noqa: ARG001
    made = build(CATALOGUE["rain12"].layouts[0], tmp_path)
    for name in made.pairs.items():
        for path in map(str, name):
            far = files.locate(f"s3://{BUCKET}/root/rain12") / path
            far.write_bytes((tmp_path / path).read_bytes())
    (row,) = datasets(f"s3://{BUCKET}/root", ["rain12"])
    assert row.found == {f"s3://{BUCKET}/root/rain12": {"test": 3}}


def test_unknown_names_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rain9000: no such dataset\. Did you mean .*rain800"):
        datasets(names=["rain9000"])
    assert [row.name for row in datasets(names=["Rain-1400", "did-mdn"])] == [
        *("rain14000", "rain1200"),
    ]
    with pytest.raises(DataError, match="no such folder"):
        datasets(tmp_path / "none")


@pytest.mark.usefixtures("ray_cluster")
def test_side_by_side_images_are_prepared_and_an_unpublished_count_is_noted(tmp_path: Path) -> None:
    made = build(CATALOGUE["rain800"].layouts[0], tmp_path / "source")
    done = prepare("rain800", made.source, tmp_path / "out")
    note = done.notes[0]
    assert "3 pairs were found, 700 are published" in note
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["notes"] == done.notes
    prepared = open_prepared(tmp_path / "out")
    assert prepared.manifest.settings["layout"] == "training/{n:d}.jpg, clean left"
    assert len(open_pixels(prepared, folder=None, budget_gib=1)) == 3
    for image in (made.source / "training").glob("*.jpg"):
        image.touch()  # newer than the manifest, with the same bytes
    assert prepare("rain800", made.source, tmp_path / "out").reused


@pytest.mark.usefixtures("ray_cluster")
def test_images_without_a_clean_image_are_kept_but_refused_for_training(
    tmp_path: Path,
) -> None:
    made = build(CATALOGUE["nturain-r"].layouts[0], tmp_path / "source")
    prepare("nturain-r", made.source, tmp_path / "out")
    prepared = open_prepared(tmp_path / "out")
    assert len(prepared) == len(made.pairs) == 3
    assert pc.all(pc.is_null(prepared.index.column("clean_sha256"))).as_py()
    with pytest.raises(DataError, match="3 of its 3 images have no clean partner"):
        open_pixels(prepared, folder=None, budget_gib=1)


@pytest.mark.usefixtures("ray_cluster")
def test_a_row_of_ones_own_is_listed_prepared_and_verified_without_its_file(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: alley\ntitle: The alley\nabout: real rain\nsplits: {day: 3}\nterms: CC0-1.0\n"
        "layouts: [{split: day, rain: 'rain/{n:d}', clean: 'clean/{n:d}'}]\n"
    )
    rows = datasets(layouts=file)
    assert [row.name for row in rows] == ["alley", *CATALOGUE]
    assert "rain/{n:d}" in rows[0].layout
    source, out = paired_folder(2, name="alley"), tmp_path / "out"
    (found,) = datasets(source, ["alley"], file)
    assert found.found == {str(source.resolve()): {"day": 2}}
    done = prepare(dataset_row("Alley", file), source, out)
    assert done.notes == ["The alley, day: 2 pairs were found, 3 are published."]
    assert prepare(dataset_row("alley", file), source, out).reused
    file.unlink()
    assert verify(out).ok
    manifest = open_prepared(out).manifest
    assert (manifest.dataset, manifest.split) == ("alley", "day")
    assert manifest.settings["row"]["layouts"] == [
        {"split": "day", "rain": "rain/{n:d}", "clean": ["clean/{n:d}"]}
    ]
    assert "license: cc0-1.0" in (out / "README.md").read_text()


def test_only_data_of_ones_own_is_named_by_its_owner() -> None:
    assert parse_card(CATALOGUE["paired"], " Rain ", None, None) == {"name": "Rain"}
    with pytest.raises(UsageError, match=r"--licence is for data of your own .*rain13k states"):
        parse_card(CATALOGUE["rain13k"], None, "MIT", None)
    with pytest.raises(UsageError, match="--source: expected some text"):
        parse_card(CATALOGUE["unpaired"], None, None, " ")
