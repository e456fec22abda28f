"""The same bytes from one worker and from eight."""

from pathlib import Path

import ray

from derain.pipelines.prepare import prepare
from tests.conftest import PairedFolder
from tests.pipelines.test_prepare_kills import SHARDS, digests


def test_one_worker_and_eight_write_the_same_bytes(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(SHARDS, width=450, height=420)
    for workers in (1, 8):
        ray.init("local", num_cpus=workers, include_dashboard=False)
        try:
            made = prepare("paired", source, tmp_path / str(workers), shard_mib=1)
        finally:
            ray.shutdown()
        assert made.shards == SHARDS
    assert digests(tmp_path / "1") == digests(tmp_path / "8")
