"""`evaluate`: the same metrics for a checkpoint and its registered version, and a report."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from derain.errors import DataError
from derain.evaluation.protocols import identity
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.register.verb import register


def test_checkpoint_and_registered_version_have_the_same_metrics(
    trained: Any, rain_datasets: tuple[Path, Path]
) -> None:
    folder, held_out = trained.result["checkpoint"], str(rain_datasets[1])
    version = register(folder, "evaluated")
    by_folder = evaluate(folder, [held_out])
    by_version = evaluate(version.uri, [held_out])
    assert evaluate("models:/evaluated@champion", [held_out])["datasets"] == by_version["datasets"]
    assert by_folder["datasets"] == by_version["datasets"]
    assert by_folder["protocols"] == ["rain13k"]
    assert by_version["model"] == version.uri
    measured = by_folder["datasets"][0]
    assert {"name", "manifest_sha256", "pictures", "metrics", "input"} <= set(measured)
    assert measured["input"] == trained.result["input"]
    for name, value in trained.result["metrics"].items():
        assert measured["metrics"][name] == pytest.approx(value, abs=1e-3)
    json.dumps(by_folder)  # what the command line prints


def test_every_protocol_is_scored_and_reported(
    trained: Any, rain_datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    model, held_out = trained.result["checkpoint"], [str(rain_datasets[1])]
    names = ["five_set", "prenet", "rain13k"]
    report = tmp_path / "reports" / "tiny.md"
    several = evaluate(model, held_out, protocols=names, report=report)
    (measured,) = several["datasets"]
    for name in names:
        (alone,) = evaluate(model, held_out, protocols=[name])["datasets"]
        assert measured["by_protocol"][name]["metrics"] == alone["metrics"]
    assert measured["metrics"] == measured["by_protocol"]["five_set"]["metrics"]
    psnrs = {measured["by_protocol"][name]["metrics"]["psnr_y"] for name in names}
    assert len(psnrs) == 3  # truncated or rounded, with the luma rounded or not
    assert several["report"] == str(report)
    text = report.read_text()
    assert all(f"| {identity(name)} |" in text for name in names)
    (image,) = (report.parent / "tiny_images").iterdir()
    assert f"](<tiny_images/{image.name}>)" in text
    with Image.open(image) as shown:
        assert shown.size == (3 * 48 + 2 * 4, 2 * 48 + 4)  # two rows of rainy, derained, clean


def test_a_missing_dataset_or_protocol_is_named(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        evaluate(trained.result["checkpoint"], [str(tmp_path / "nowhere")])
    with pytest.raises(DataError, match="Unknown protocol"):
        evaluate(
            trained.result["checkpoint"], list(trained.config.data.validation), protocols=["none"]
        )
