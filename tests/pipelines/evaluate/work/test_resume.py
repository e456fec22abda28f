"""An evaluation that goes on: what is kept, what is scored again, and what begins afresh."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks._small import write_dataset
from derain import models
from derain.config.data import DataConfig
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import open_prepared
from derain.evaluation.scoring import score_dataset
from derain.inference.predictor import save_model_folder
from derain.pipelines.evaluate.verb import IMAGES, RESULT, evaluate
from derain.pipelines.evaluate.work.scorer import one_thread
from derain.pipelines.load_model import load_predictor
from tests.folders import write_pairs

PROTOCOLS = ("rain13k", "prenet")


def images(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / IMAGES).drop(["seconds"]).to_pylist()


def keep(out: Path, count: int) -> None:
    """Leave as many images in the parts as a kill would have."""
    first, *others = sorted((out / "parts").glob("*/*.parquet"))
    pq.write_table(pq.read_table([first, *others]).slice(0, count), first)
    for part in others:
        part.unlink()


def test_only_what_is_missing_is_scored_again(model: str, dataset: str, tmp_path: Path) -> None:
    whole = evaluate(model, [dataset], protocols=PROTOCOLS, out=tmp_path / "a", workers=1)
    assert whole["cost"]["images"] == 9
    assert whole["cost"]["images_per_s"] > 0
    assert whole["cost"]["peak_memory_bytes"] > 2**20
    undisturbed = images(tmp_path / "a")
    keep(tmp_path / "a", 4)

    again = evaluate(model, [dataset], protocols=PROTOCOLS, out=tmp_path / "a", workers=1)
    assert again["cost"]["images"] == 5
    assert again["datasets"] == whole["datasets"]
    assert images(tmp_path / "a") == undisturbed
    finished = evaluate(model, [dataset], protocols=PROTOCOLS, out=tmp_path / "a", workers=1)
    assert finished["cost"]["images"] == 0
    assert finished["datasets"] == whole["datasets"]


def test_the_table_and_the_result_have_the_same_metrics(
    model: str, dataset: str, tmp_path: Path
) -> None:
    result = evaluate(model, [dataset], protocols=PROTOCOLS, out=tmp_path, workers=1)
    rows = pq.read_table(tmp_path / IMAGES).to_pylist()
    (measured,) = result["datasets"]
    assert [row["key"] for row in rows] == [image["key"] for image in measured["per_picture"]]
    for row, image in zip(rows, measured["per_picture"], strict=True):
        assert row["model"] == model
        assert row["manifest_sha256"] == measured["manifest_sha256"]
        assert row["rain13k.psnr_y"] == image["metrics"]["psnr_y"]
        assert row["rain13k.input.ssim_y"] == image["input"]["ssim_y"]
        assert row["seconds"] > 0
        assert row["reason"] is None
    assert (tmp_path / RESULT).is_file()


def test_the_metrics_are_those_of_scoring_one_image_after_the_other(
    model: str, dataset: str
) -> None:
    """Also to the last digit: the network runs with the same number of threads."""
    result = evaluate(model, [dataset], protocols=PROTOCOLS)
    prepared, predictor = open_prepared(dataset), load_predictor(model)
    (pixels,) = open_all_pixels([prepared], DataConfig.model_validate({}))
    for protocol in PROTOCOLS:
        with one_thread():
            scores = score_dataset(predictor.levels, prepared, pixels, protocol)
        measured = result["datasets"][0]["by_protocol"][protocol]
        assert measured["metrics"] == scores.metrics
        assert measured["input"] == scores.input


@pytest.mark.parametrize("change", ["weights", "protocols", "dataset"])
def test_other_work_begins_afresh(change: str, model: str, dataset: str, tmp_path: Path) -> None:
    evaluate(model, [dataset], out=tmp_path / "out", workers=1)
    protocols = ["rain13k"]
    if change == "weights":
        network = models.build("nafnet", width=4, encoder_blocks=[1], decoder_blocks=[1])
        with torch.no_grad():
            next(network.parameters())[0] += 0.01
        options = {"width": 4, "encoder_blocks": [1], "decoder_blocks": [1]}
        model = str(save_model_folder(network, tmp_path / "other", "nafnet", options))
    elif change == "protocols":
        protocols = ["rain13k", "five_set"]
    else:
        source = write_pairs(tmp_path / "source", 3, width=40, height=32)
        dataset = str(write_dataset(source, tmp_path / "three").folder)
    result = evaluate(model, [dataset], protocols=protocols, out=tmp_path / "out", workers=1)
    assert result["cost"]["images"] == result["datasets"][0]["pictures"] > 0


@pytest.mark.parametrize("content", [b"", b"PAR1" + bytes(20) + b"PAR1", b"text"])
def test_damaged_parts_are_scored_again(
    model: str, dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    whole = evaluate(model, [dataset], out=tmp_path, workers=1)
    undisturbed = images(tmp_path)
    (first, *_) = sorted((tmp_path / "parts").glob("*/*.parquet"))
    first.write_bytes(content)
    again = evaluate(model, [dataset], out=tmp_path, workers=1)
    assert f"{first} is damaged, its images are scored again" in caplog.text
    assert again["datasets"] == whole["datasets"]
    assert images(tmp_path) == undisturbed


def test_a_part_of_another_program_is_not_taken_for_one(
    model: str, dataset: str, tmp_path: Path
) -> None:
    evaluate(model, [dataset], out=tmp_path, workers=1)
    (first, *_) = sorted((tmp_path / "parts").glob("*/*.parquet"))
    pq.write_table(pa.table({"a": [1]}), first)
    assert evaluate(model, [dataset], out=tmp_path, workers=1)["cost"]["images"] == 9
