"""`prepare` writes the same bytes with one worker and with eight."""

from pathlib import Path

import pytest
import ray

from derain.pipelines.prepare.verb import prepare
from tests.folders import digests, write_scenes
from tests.pipelines.prepare.kills import SHARDS


@pytest.mark.parametrize("once", [False, True], ids=["each", "clean_once"])
def test_one_worker_and_eight_write_the_same_bytes(once: bool, tmp_path: Path) -> None:
    source = write_scenes(tmp_path / "source", SHARDS, rains=2, width=450, height=420)
    for workers in (1, 8):
        ray.init("local", num_cpus=workers, include_dashboard=False)
        try:
            out = tmp_path / str(workers)
            made = prepare("rain14000", source, out, shard_mib=1, clean_once=once)
        finally:
            ray.shutdown()
        assert made.shards >= SHARDS
    assert digests(tmp_path / "1") == digests(tmp_path / "8")
