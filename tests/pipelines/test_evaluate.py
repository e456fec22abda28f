"""Evaluation: one set of figures, whichever way the model is named."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.data.loading.loader import open_all
from derain.data.prepared.manifest import open_prepared
from derain.errors import DataError, WeightsError
from derain.evaluation.gallery import best_and_worst, gallery
from derain.evaluation.protocols import score
from derain.evaluation.scoring import overall, score_dataset
from derain.pipelines.evaluate import evaluate
from derain.pipelines.load_model import load_predictor
from derain.pipelines.register import register


def test_checkpoint_and_registered_version_have_the_same_figures(
    trained: Any, rain_datasets: tuple[Path, Path]
) -> None:
    folder, held_out = trained.result["checkpoint"], str(rain_datasets[1])
    version = register(folder, "evaluated")
    ours = evaluate(folder, [held_out])
    theirs = evaluate(version.uri, [held_out])
    assert evaluate("models:/evaluated@champion", [held_out])["datasets"] == theirs["datasets"]
    assert ours["datasets"] == theirs["datasets"]
    assert ours["protocols"] == ["rain13k"]
    assert theirs["model"] == version.uri
    measured = ours["datasets"][0]
    assert {"name", "manifest_sha256", "pictures", "metrics", "input"} <= set(measured)
    assert measured["input"] == trained.result["input"]
    for name, value in trained.result["metrics"].items():
        assert measured["metrics"][name] == pytest.approx(value, abs=1e-3)
    json.dumps(ours)  # what the command line prints


def test_scores_are_those_of_each_image(rain_datasets: tuple[Path, Path], trained: Any) -> None:
    dataset = open_prepared(rain_datasets[1])
    (pixels,) = open_all([dataset], trained.config.data)
    scored = score_dataset(lambda rain: rain, dataset, pixels, "rain13k")
    rainy = [score(pixels[at][0], pixels[at][1], "rain13k").psnr_y for at in range(len(dataset))]
    assert [item.input["psnr_y"] for item in scored.per_picture] == rainy
    assert scored.metrics == scored.input
    assert scored.metrics["psnr_y"] == fmean(rainy)
    clean = iter([pixels[at][1] for at in range(len(dataset))])
    perfect = score_dataset(lambda _: next(clean), dataset, pixels, "rain13k")
    assert perfect.metrics["ssim_y"] == 1.0
    assert perfect.input == scored.input


def test_the_average_is_over_datasets_not_over_images(
    rain_datasets: tuple[Path, Path], trained: Any
) -> None:
    datasets = [open_prepared(folder) for folder in rain_datasets]
    scored = [
        score_dataset(lambda rain: rain, dataset, pixels, "rain13k")
        for dataset, pixels in zip(datasets, open_all(datasets, trained.config.data), strict=True)
    ]
    assert scored[0].pictures != scored[1].pictures
    metrics, _ = overall(scored)
    assert metrics["psnr_y"] == fmean(item.metrics["psnr_y"] for item in scored)


def test_each_protocol_scores_the_same_images_and_the_report_has_all(
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
    figures = {measured["by_protocol"][name]["metrics"]["psnr_y"] for name in names}
    assert len(figures) == 3  # cut off or rounded, the luma rounded or not
    assert several["report"] == str(report)
    text = report.read_text()
    assert all(f"| {name} |" in text for name in names)
    (image,) = (report.parent / "tiny_images").iterdir()
    assert f"](<tiny_images/{image.name}>)" in text
    with Image.open(image) as shown:
        assert shown.size == (3 * 48 + 2 * 4, 2 * 48 + 4)  # two rows of rainy, derained, clean


def test_best_and_worst_are_by_psnr_and_no_image_comes_twice() -> None:
    scores = [{"metrics": {"psnr_y": value}} for value in (30.0, 20.0, 40.0, 10.0, 25.0)]
    assert best_and_worst(scores, 2) == [2, 0, 1, 3]
    assert best_and_worst(scores, 3) == [2, 0, 4, 1, 3]
    assert best_and_worst(scores[:1], 2) == [0]


def test_the_gallery_shows_rain_derained_clean_in_rows() -> None:
    shapes = [(8, 10), (6, 7), (5, 9)]
    pixels = [np.full((2, *shape, 3), (at + 1) * 20, np.uint8) for at, shape in enumerate(shapes)]
    grid = gallery([lambda rain: rain + 1], pixels, 2)  # type: ignore[arg-type]
    assert grid.shape == (8 + 4 + 5, 10 * 3 + 4 * 2, 3)
    assert grid[0, 0, 0] == 20
    assert grid[0, 14, 0] == 21
    assert grid[-1, 0, 0] == 60
    assert grid[-1, -1, 0] == 255


def test_what_is_no_model_is_named(tmp_path: Path, rain_datasets: tuple[Path, Path]) -> None:
    with pytest.raises(WeightsError, match=str(tmp_path)):
        load_predictor(str(tmp_path), "cpu")
    with pytest.raises(WeightsError, match="nowhere"):
        evaluate(str(tmp_path / "nowhere"), [str(rain_datasets[1])])


def test_what_is_no_dataset_is_named(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        evaluate(trained.result["checkpoint"], [str(tmp_path / "nowhere")])
    with pytest.raises(DataError, match="No protocol"):
        evaluate(trained.result["checkpoint"], list(trained.config.data.eval), protocols=["none"])
