"""SIGKILL of `prepare` and all its workers: the next call writes the same bytes."""

from pathlib import Path

import pytest

from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from tests.folders import PairedFolder, digests
from tests.pipelines.prepare.kills import SHARDS, kill_prepare


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_a_kill_leaves_no_trace(paired_folder: PairedFolder, tmp_path: Path) -> None:
    """One; `tests/soak/prepare_kills.py` has twenty."""
    source, out = paired_folder(SHARDS, width=450, height=420), tmp_path / "killed"
    prepare("paired", source, tmp_path / "whole", shard_mib=1)
    assert kill_prepare(source, out, shards=2, delay_s=0.01) >= 2
    prepare("paired", source, out, shard_mib=1)
    assert digests(out) == digests(tmp_path / "whole")
    assert verify(out).ok
