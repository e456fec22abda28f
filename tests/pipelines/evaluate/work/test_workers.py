"""Workers of Ray give what one process gives, and outlive the death of one of them."""

import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from derain.errors import UsageError
from derain.inference.predictor import save_model_folder
from derain.pipelines.evaluate.verb import IMAGES, evaluate
from derain.pipelines.evaluate.work.workers import Workers, chunked
from tests.pipelines.evaluate.work.deadly import KILLING, Deadly


def images(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / IMAGES).drop(["seconds"]).to_pylist()


@pytest.mark.filterwarnings("error::ray.util.annotations.RayDeprecationWarning")
@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_give_what_this_process_gives(
    model: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocols = ["rain13k", "prenet"]
    alone = evaluate(model, [dataset], protocols=protocols, out=tmp_path / "a", workers=1)
    several = evaluate(model, [dataset], protocols=protocols, out=tmp_path / "b", workers=2)
    assert several["cost"]["workers"] == 2
    assert several["cost"]["images"] == alone["cost"]["images"] == 9
    assert several["datasets"] == alone["datasets"]
    assert images(tmp_path / "b") == images(tmp_path / "a")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # no other machine may join
    with pytest.raises(UsageError, match="--workers 99"):
        evaluate(model, [dataset], workers=99)


def deadly(folder: Path, *, always: bool) -> str:
    """A model folder of a network that kills its process."""
    marker = folder / "marker"
    if always:
        marker.mkdir()
    options = {"marker": str(marker)}
    name = f"{Deadly.__module__}:{Deadly.__name__}"
    return str(save_model_folder(Deadly(**options), folder / "deadly", name, options))


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_dies_is_replaced_and_its_images_are_scored_again(
    dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = deadly(tmp_path, always=False)
    with caplog.at_level(logging.WARNING, "derain"):
        result = evaluate(model, [dataset], workers=2, trust=True)
    assert (tmp_path / "marker").exists()
    assert not result["left_out"]
    assert result["datasets"][0]["pictures"] == 9
    assert "a worker died, or its machine was lost" in caplog.text
    assert result["datasets"] == evaluate(model, [dataset], workers=1, trust=True)["datasets"]


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_an_image_that_always_kills_its_worker_costs_only_itself(
    dataset: str, tmp_path: Path
) -> None:
    result = evaluate(deadly(tmp_path, always=True), [dataset], workers=2, trust=True)
    (image,) = result["left_out"]
    assert image["key"] == KILLING
    assert "died" in image["reason"]
    assert result["datasets"][0]["pictures"] == 8


def test_chunks_have_every_number_once_and_end_at_about_the_same_time() -> None:
    for count, workers in ((1, 1), (9, 2), (5000, 2), (5000, 64)):
        chunks = chunked(0, "test", range(count), workers, count)
        assert [at for chunk in chunks for at in chunk.numbers] == list(range(count))
        assert max(len(chunk.numbers) for chunk in chunks) <= max(1, count // (8 * workers))


def test_a_worker_on_a_gpu_keeps_one_core_for_the_network() -> None:
    assert Workers(count=1, cpus=8.0, gpus=1.0).threads == 7
    assert Workers(count=2, cpus=1.0, gpus=0.0).threads == 1
