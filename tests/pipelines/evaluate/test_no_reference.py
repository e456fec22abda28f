"""Datasets without clean images: NIQE and BRISQUE, and what cannot be measured is said."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks._small import write_dataset
from derain.cli.printed.results import plain
from derain.cli.printed.scores import scores as printed_scores
from derain.errors import DataError
from derain.evaluation.no_reference import NoReference
from derain.evaluation.scoring import Derain
from derain.inference.predictor import Predictor
from derain.pipelines.evaluate.measures import has_clean
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.evaluate.work.images import Images
from derain.pipelines.evaluate.work.scorer import one_thread
from derain.pipelines.load_model import load_predictor
from tests.folders import write_pairs
from tests.pipelines.evaluate.datasets import without_clean

NAMES = ["niqe_live", "brisque_live"]


def test_they_are_measured_by_niqe_and_brisque(model: str, tmp_path: Path) -> None:
    dataset = without_clean(tmp_path)
    report = tmp_path / "report.md"
    result = evaluate(model, [str(dataset.folder)], report=report, out=tmp_path / "out", workers=1)
    (measured,) = result["datasets"]
    assert list(measured["by_protocol"]) == NAMES
    assert measured["pictures"] == 3

    measure, predictor = NoReference(), load_predictor(model)
    images = [Images(dataset, [])[at][0] for at in range(3)]
    for side, derain in (("input", lambda rain: rain), ("metrics", derained_by(predictor))):
        expected = [measure(derain(rain)) for rain in images]
        for name in NAMES:
            mean = np.mean([values[name] for values in expected])
            found = measured["by_protocol"][name]
            assert found[side] == pytest.approx({name: mean}, abs=1e-12)
            assert found["identity"].startswith(name)
    assert "niqe_live" in report.read_text()
    text = plain(printed_scores(result))
    assert "niqe_live" in text
    assert "PSNR" not in text
    json.dumps(result)


def derained_by(predictor: Predictor) -> Derain:
    def derain(rain: np.ndarray) -> np.ndarray:
        with one_thread():
            return predictor.derain(rain)

    return derain


def test_pairs_can_have_them_beside_a_protocol(model: str, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "source", 1, width=220, height=200)
    dataset = write_dataset(source, tmp_path / "pairs", shards=1)
    names = ["rain13k", "niqe_live"]
    result = evaluate(model, [str(dataset.folder)], protocols=names, workers=1)
    assert list(result["datasets"][0]["by_protocol"]) == names
    assert set(result["datasets"][0]["metrics"]) == {"psnr_y", "ssim_y"}
    with pytest.raises(DataError, match=r"choose from: rain13k.*niqe_live"):
        evaluate(model, [str(dataset.folder)], protocols=["niqe"])


def test_a_dataset_of_which_some_have_a_clean_image_is_refused(model: str, tmp_path: Path) -> None:
    dataset = without_clean(tmp_path, every=2)
    with pytest.raises(DataError, match="2 of its 3 images have no clean partner"):
        evaluate(model, [str(dataset.folder)])
    with pytest.raises(DataError):
        has_clean(dataset)


def test_an_image_that_cannot_be_measured_is_left_out(model: str, tmp_path: Path) -> None:
    """60 x 50 px are less than one block of NIQE."""
    source = write_pairs(tmp_path / "source", 1, width=60, height=50)
    small = write_dataset(source, tmp_path / "small", shards=1)
    large = write_dataset(
        write_pairs(tmp_path / "second", 1, width=220, height=200), tmp_path / "large", shards=1
    )
    folders = [str(small.folder), str(large.folder)]
    result = evaluate(model, folders, protocols=NAMES, workers=1)
    assert [item["name"] for item in result["datasets"]] == ["large"]
    assert [item["dataset"] for item in result["left_out"]] == ["small"]
