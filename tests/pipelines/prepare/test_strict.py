"""`prepare --strict` reports all that is left out, at once; without it that is in the notes."""

import json
import logging
from pathlib import Path

import datasets
import pytest
from PIL import Image

from derain.data.prepared.card import CARD
from derain.data.prepared.manifest import MANIFEST, open_prepared
from derain.errors import DataError
from derain.pipelines.prepare.strict import StrictError
from derain.pipelines.prepare.verb import prepare
from tests.folders import PairedFolder


@pytest.fixture
def source(paired_folder: PairedFolder) -> Path:
    """Twelve pairs with everything that may be left out, and something that need not be used."""
    source = paired_folder(12)
    (source / "rain/000.png").write_bytes(b"not an image")
    (source / "rain/alone.png").write_bytes(b"x")
    (source / "rain/sub").mkdir()
    (source / "rain/sub/a.png").write_bytes(b"x")
    for number in range(7):
        (source / f"rain/{number}.heic").write_bytes(b"x")
    (source / "labels.json").write_text(
        json.dumps({"gone.png": {"density": "light"}, "011.png": {"density": "heavy"}})
    )
    (source / "README.txt").write_text("Taken in Bergen.")
    return source


@pytest.mark.usefixtures("ray_cluster")
def test_all_problems_are_reported_at_once_and_nothing_is_written(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(StrictError) as caught:
        prepare("paired", source, tmp_path / "out", strict=True)
    text = str(caught.value)
    for expected in (
        "2 images cannot be used (--strict).",
        "rain/alone.png: no clean partner",
        "rain/000.png: ",
        "which were left out (--strict): 1.\n  rain/sub/a.png",
        "(7 .heic), which were left out (--strict): 7.\n  rain/0.heic",
        "and 2 more",
        "labels.json that are the name of no image (--strict): 1.\n  gone.png",
        "1 of 12 images have the label density",
    ):
        assert expected in text
    assert "README" not in text
    assert "rain/6.heic" not in text
    assert caught.value.exit_code == 2
    assert "rain/6.heic" in {item["path"] for item in caught.value.problems}
    assert len(caught.value.problems) == 2 + 1 + 7 + 1 + 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_without_it_they_are_in_log_manifest_and_card_and_readers_see_all_labels(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    out = tmp_path / "out"
    done = prepare("paired", source, out, card={"name": "Bergen", "licence": "CC0-1.0"})
    assert done.pairs == 11
    assert len(done.notes) == 5
    card = (out / CARD).read_text()
    for note in done.notes:
        assert note in card
        assert note in json.loads((out / MANIFEST).read_text())["notes"]
    levels = {record.getMessage()[9:]: record.levelname for record in caplog.records}
    assert [levels[note] for note in done.notes] == ["WARNING"] * 4 + ["INFO"]
    assert "license: cc0-1.0" in card
    assert "# Bergen, train" in card
    read = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "hf"))["train"]
    assert [row["json"]["labels"]["density"] for row in read] == [""] * 10 + ["heavy"]
    with pytest.raises(DataError, match="001 has no label `density`; its labels: none"):
        open_prepared(out).labels("density")
    with pytest.raises(StrictError, match="2 images cannot be used"):
        prepare("paired", source, out, card={"name": "Bergen", "licence": "CC0-1.0"}, strict=True)


@pytest.mark.usefixtures("ray_cluster")
def test_a_source_without_problems_passes(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source = paired_folder(2)
    for side in ("rain", "clean"):
        with Image.open(source / side / "000.png") as image:
            image.save(source / side / "2.jfif", "JPEG")
    (source / "README.txt").touch()
    done = prepare("paired", source, tmp_path / "out", strict=True)
    assert done.pairs == 3
    assert set(open_prepared(tmp_path / "out").column("rain_member")) == {
        *("000.rain.png", "001.rain.png", "2.rain.jpg"),
    }
