"""What is stored about a finished part is found again, while its tars and its source last."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from derain.data.prepared.manifest import open_prepared
from derain.data.prepared.shards import ShardLimits, WrittenShards, write_shards
from derain.data.sources.discover import find_pairs
from derain.pipelines.prepare.finished_shards import PARTS, find, record
from derain.pipelines.prepare.verb import prepare
from tests.folders import PairedFolder
from tests.pipelines.prepare.unfinished import index_cannot_be_written


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


def remark(path: Path, kind: str) -> None:
    """Add a remark on a rainy image to a recorded part of one pair."""
    rows = pq.read_table(path)
    note = json.loads(rows.schema.metadata[b"derain"])
    note["remarks"] = {kind: [1, rows["rain_source"][0].as_py()]}
    pq.write_table(rows.replace_schema_metadata({b"derain": json.dumps(note)}), path)


@pytest.mark.usefixtures("ray_cluster")
def test_remarks_of_all_parts_become_notes_of_the_dataset(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source, out = paired_folder(4), tmp_path / "out"
    with index_cannot_be_written(out):
        prepare("paired", source, out, pairs_per_shard=1)
    for number, kind in enumerate(("Of noise", "Odd", "Of noise", "Of noise")):
        remark(out / PARTS / f"{number:06d}.parquet", kind)
    done = prepare("paired", source, out, pairs_per_shard=1)
    expected = ["Odd: 1, such as rain/001.png.", "Of noise: 3, such as rain/000.png."]
    assert done.notes == sorted(expected)
    assert open_prepared(out).manifest.notes == tuple(done.notes)


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("lost", ["mark", "entries", "quarantined", "remarks"])
def test_a_part_without_all_of_its_note_is_written_again(tmp_path: Path, lost: str) -> None:
    path = tmp_path / PARTS / "000003.parquet"
    rows = pq.read_table(path)
    note = json.loads(rows.schema.metadata[b"derain"])
    del note[lost]
    pq.write_table(rows.replace_schema_metadata({b"derain": json.dumps(note)}), path)
    assert find(tmp_path, 3, "mark") is None


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("content", [b"", b"text", b"PAR1" + bytes(30) + b"PAR1"])
def test_a_damaged_part_is_written_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PARTS / "000003.parquet").write_bytes(content)
    assert find(tmp_path, 3, "mark") is None
