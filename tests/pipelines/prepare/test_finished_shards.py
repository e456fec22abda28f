"""What is stored about a finished part is found again, while its tars and its source last."""

from dataclasses import replace
from pathlib import Path

import pytest

from derain.data.prepared.shards import ShardLimits, WrittenShards, write_shards
from derain.data.sources.discover import find_pairs
from derain.pipelines.prepare.finished_shards import PARTS, find, record
from tests.folders import PairedFolder


@pytest.fixture
def written(paired_folder: PairedFolder, tmp_path: Path) -> WrittenShards:
    """Part 3, of two shards and an image left out, recorded in `tmp_path`."""
    source = paired_folder(4)
    (source / "rain/001.png").write_bytes(b"not an image")
    pairs, limits = find_pairs("paired", source).pairs, ShardLimits(pairs=2)
    shards = write_shards(pairs, source, tmp_path / "a.tar", limits=limits)
    shards = replace(shards, remarks={"Of noise": (3, "rain/000.png")})
    (tmp_path / PARTS).mkdir()
    record(tmp_path, 3, shards, "mark")
    return shards


def test_a_part_is_found_with_all_its_shards_and_remarks(
    written: WrittenShards, tmp_path: Path
) -> None:
    found = find(tmp_path, 3, "mark")
    assert found is not None
    assert [entry.name for entry in found.entries] == ["a.tar", "a-01.tar"]
    assert (found.entries, found.quarantined) == (written.entries, written.quarantined)
    assert found.remarks == written.remarks
    assert find(tmp_path, 3, "another mark") is None
    assert find(tmp_path, 2, "mark") is None


@pytest.mark.usefixtures("written")
def test_a_part_that_lost_a_tar_is_written_again(tmp_path: Path) -> None:
    with (tmp_path / "a-01.tar").open("ab") as tar:
        tar.write(b"x")
    assert find(tmp_path, 3, "mark") is None
    (tmp_path / "a-01.tar").unlink()
    assert find(tmp_path, 3, "mark") is None
