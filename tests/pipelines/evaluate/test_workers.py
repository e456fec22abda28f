"""Workers of Ray give what one process gives, and outlive the death of one of them."""

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from derain.errors import UsageError
from derain.pipelines.evaluate.verb import IMAGES, evaluate
from derain.pipelines.evaluate.workers import Workers, chunked


class Deadly(nn.Module):
    """Kills its process at images whose first value is below `limit`; the first time, or always."""

    stride = 1

    def __init__(self, *, marker: str, limit: float = 0.02) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self._marker, self._limit = Path(marker), limit

    def forward(self, x: Tensor) -> Tensor:
        """Rainy -> the same, if the process lives."""
        if float(x[0, 0, 0, 0]) < self._limit:
            always = self._marker.is_dir()
            if always or not self._marker.exists():
                if not always:
                    self._marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return x * self.scale


def images(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / IMAGES).drop(["seconds"]).to_pylist()


@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_give_what_this_process_gives(model: str, dataset: str, tmp_path: Path) -> None:
    protocols = ["rain13k", "prenet"]
    alone = evaluate(model, [dataset], protocols=protocols, out=tmp_path / "a", workers=1)
    several = evaluate(model, [dataset], protocols=protocols, out=tmp_path / "b", workers=2)
    assert several["cost"]["workers"] == 2
    assert several["cost"]["images"] == alone["cost"]["images"] == 9
    assert several["datasets"] == alone["datasets"]
    assert images(tmp_path / "b") == images(tmp_path / "a")
    with pytest.raises(UsageError, match="--workers 99"):
        evaluate(model, [dataset], workers=99)


def test_chunks_have_every_number_once_and_end_at_about_the_same_time() -> None:
    for count, workers in ((1, 1), (9, 2), (5000, 2), (5000, 64)):
        chunks = chunked(0, "test", range(count), workers, count)
        assert [at for chunk in chunks for at in chunk.numbers] == list(range(count))
        assert max(len(chunk.numbers) for chunk in chunks) <= max(1, count // (8 * workers))


def test_a_worker_on_a_gpu_keeps_one_core_for_the_network() -> None:
    assert Workers(count=1, cpus=8.0, gpus=1.0).threads == 7
    assert Workers(count=2, cpus=1.0, gpus=0.0).threads == 1
