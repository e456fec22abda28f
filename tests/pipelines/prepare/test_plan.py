"""Plans: the same shards for the same source, and marks that change with the files."""

import hashlib
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from derain.data.images.decode import MAX_BYTES
from derain.data.prepared.shards import write_shards
from derain.errors import DataError
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.plan import Plan, make_plan
from tests.folders import PairedFolder, write_scenes

SMALL = PrepareOptions(shard_mib=1)


def planned(source: Path) -> tuple[Plan, list[list[str]]]:
    """A plan, and the keys of the pairs of each shard."""
    plan, lines = make_plan("paired", source, source, SMALL)
    return plan, [[it.key for it in plan.pairs_of(lines, number)] for number in range(len(plan))]


def test_every_pair_is_in_one_shard_and_no_shard_is_too_large(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(9, width=300, height=200)
    plan, shards = planned(source)
    assert [key for shard in shards for key in shard] == [f"{n:03d}" for n in range(9)]
    assert len(shards) > 2
    _, lines = make_plan("paired", source, source, SMALL)
    for number in range(len(plan)):
        write_shards(plan.pairs_of(lines, number), source, tmp_path / "x.tar")
        with tarfile.open(tmp_path / "x.tar") as archive:
            assert len(archive.getnames()) == 3 * len(shards[number])
        assert (tmp_path / "x.tar").stat().st_size <= 2**20


def test_a_scene_is_in_one_shard(tmp_path: Path) -> None:
    source = write_scenes(tmp_path / "source", scenes=4, rains=3, width=450, height=320)
    plain, _ = make_plan("rain14000", source, source, SMALL)
    clean_once = PrepareOptions(shard_mib=1, clean_once=True)
    plan, lines = make_plan("rain14000", source, source, clean_once)
    shards = [plan.pairs_of(lines, number) for number in range(len(plan))]
    assert [{pair.scene for pair in pairs} for pairs in shards] == [{"1"}, {"2"}, {"3"}, {"4"}]
    assert [len(pairs) for pairs in shards] == [3, 3, 3, 3]
    clean = [path.stat().st_size for path in (source / "ground_truth").iterdir()]
    assert (plain.repeated_bytes, plan.repeated_bytes) == (2 * sum(clean), 0)
    assert plain.identity() != plan.identity()


def test_a_changed_file_changes_the_mark_of_its_shard_only(
    paired_folder: PairedFolder,
) -> None:
    source = paired_folder(9, width=300, height=200)
    before, shards = planned(source)
    image = source / "rain" / f"{shards[1][0]}.png"
    stat = image.stat()
    image.write_bytes(image.read_bytes()[:-1] + b"xy")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if it had not changed
    after, _ = planned(source)
    assert after.identity() == before.identity()
    same = [one == other for one, other in zip(before.marks, after.marks, strict=True)]
    assert same == [number != 1 for number in range(len(shards))]
    assert after.newest_ns > before.newest_ns


def test_what_is_not_a_file_or_is_too_large_is_quarantined(paired_folder: PairedFolder) -> None:
    """Nothing of it is read: a pipe would never end, and a huge file would fill the memory."""
    source = paired_folder(5)
    for number in range(4):
        (source / "rain" / f"00{number}.png").unlink()
    os.mkfifo(source / "rain/000.png")
    (source / "rain/001.png").symlink_to("gone.png")
    with (source / "rain/002.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    (source / "rain/003.png").mkdir()
    plan, shards = planned(source)
    assert (plan.pairs, shards) == (1, [["004"]])
    reasons = {item.path: item.reason for item in plan.quarantined}
    assert set(reasons) == {*(f"rain/00{n}.png" for n in range(3)), "clean/003.png"}
    assert "no file" in reasons["rain/000.png"]
    assert "no file" in reasons["rain/001.png"]
    assert "at most 385,048,576 are read" in reasons["rain/002.png"]
    (source / "rain/004.png").unlink()
    with pytest.raises(DataError, match="no pair can be used, such as rain/000"):
        planned(source)


def test_a_leaked_name_with_other_content_is_an_error(paired_folder: PairedFolder) -> None:
    source = paired_folder(3)
    data = (source / "clean/001.png").read_bytes()
    leaked, other = (hashlib.sha256(content).hexdigest() for content in (data, data + b"x"))
    options = replace(SMALL, without={"clean/001.png": leaked})
    assert make_plan("paired", source, source, options)[0].pairs == 2
    with pytest.raises(DataError, match=r"clean/001\.png differs from the image"):
        make_plan("paired", source, source, replace(SMALL, without={"clean/001.png": other}))


def test_the_manifest_records_the_options_that_differ_from_the_defaults() -> None:
    assert SMALL.settings() == {"shard_mib": 1}
    options = replace(SMALL, split="test", share=(0.0, 0.9), strict=True, decode=True)
    assert options.settings() == {"shard_mib": 1, "share": [0.0, 0.9], "decode": True}
    assert replace(SMALL, pairs_per_shard=9).settings() == {"shard_mib": 1, "pairs_per_shard": 9}
    assert replace(SMALL, clean_once=True).settings() == {"shard_mib": 1, "clean_once": True}
