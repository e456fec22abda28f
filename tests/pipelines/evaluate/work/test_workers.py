"""Workers of Ray give what one process gives, and outlive the death of one of them."""

import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from derain.errors import UsageError
from derain.pipelines.evaluate.verb import IMAGES, evaluate
from derain.pipelines.evaluate.work.scorer import Chunk
from derain.pipelines.evaluate.work.workers import Unscored
from tests.pipelines.evaluate.work.deadly import KILLING, deadly


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


def test_chunks_have_every_number_once_of_one_dataset_each() -> None:
    left = Unscored({(0, "a"): range(9), (1, "a"): [5, 3], (0, "b"): []})
    assert len(left) == 11
    chunks = [Chunk(it["method"], it["dataset"], it["numbers"]) for it in left.chunks(4)]
    assert [(it.method, it.dataset) for it in chunks] == [(0, "a")] * 3 + [(1, "a")]
    assert [at for it in chunks for at in it.numbers] == [*range(9), 3, 5]
    left.take(chunks[0])
    assert len(left) == 7
    assert left.chunks(9)[0]["numbers"] == (4, 5, 6, 7, 8)
