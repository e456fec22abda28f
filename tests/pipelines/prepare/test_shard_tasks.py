"""Parts that go to an object store are written several at a time, and cost it two requests each."""

import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from derain.errors import StorageError
from derain.pipelines.prepare import finished_shards, shard_tasks
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.plan import Plan, make_plan
from derain.pipelines.prepare.shard_tasks import write_parts
from derain.storage import files
from derain.storage.remote import RemotePath
from tests.folders import PairedFolder
from tests.storage.faulty_store import BUCKET, FaultyStore

PARTS = 6


@pytest.fixture
def source(paired_folder: PairedFolder) -> Path:
    return paired_folder(PARTS)


def plan_for(source: Path, out: Path) -> tuple[Plan, np.ndarray]:
    """A part for every pair."""
    return make_plan("paired", source, out, PrepareOptions(pairs_per_shard=1))


def uploads(monkeypatch: pytest.MonkeyPatch, before: object) -> list[str]:
    """The names of files that have been sent, in their order; `before` is called with each name
    before it is."""
    sent: list[str] = []
    real = RemotePath.upload

    def upload(self: RemotePath, file: BinaryIO) -> None:
        before(self.name)  # type: ignore[operator]
        real(self, file)
        sent.append(self.name)

    monkeypatch.setattr(RemotePath, "upload", upload)
    return sent


@pytest.mark.usefixtures("object_store")
def test_shards_are_sent_side_by_side_and_are_those_of_a_disk(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one at a time none would be sent: each waits until two are about to be."""
    two = threading.Barrier(2)
    sent = uploads(monkeypatch, lambda name: name.endswith(".tar") and two.wait(60))
    far = files.locate(f"s3://{BUCKET}/prepared")
    write_parts(*plan_for(source, far), range(PARTS), at_once=2)
    plan, lines = plan_for(source, tmp_path)
    (tmp_path / finished_shards.PARTS).mkdir()
    write_parts(plan, lines, range(PARTS), at_once=2)
    assert len(sent) == 2 * PARTS
    for number in range(PARTS):
        part = f"{finished_shards.PARTS}/{number:06d}.parquet"
        for name in (shard_tasks.shard_name(plan.prefix, number), part):
            assert (far / name).read_bytes() == (tmp_path / name).read_bytes()
        tar, note = shard_tasks.shard_name(plan.prefix, number), f"{number:06d}.parquet"
        assert sent.index(tar) < sent.index(note), "a part counted before its shard was there"


def test_a_failing_part_leaves_the_others_and_is_written_later(
    source: Path, object_store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, lines = plan_for(source, files.locate(f"s3://{BUCKET}/prepared"))
    lost = shard_tasks.shard_name(plan.prefix, 2)

    def refuse(name: str) -> None:
        if name == lost:
            raise StorageError(f"{name}: no")

    with monkeypatch.context() as patch:
        sent = uploads(patch, refuse)
        with pytest.raises(StorageError, match=f"{lost}: no"):
            write_parts(plan, lines, range(PARTS), at_once=2)
    found = shard_tasks.finished(plan)
    missing = [number for number, part in enumerate(found) if part is None]
    assert 2 in missing
    assert 0 not in missing
    assert len(sent) == 2 * (PARTS - len(missing)), "a part without its note, or the reverse"
    write_parts(plan, lines, missing, at_once=2)
    assert all(shard_tasks.finished(plan))
    assert object_store.done["errors"] == 0


def test_a_part_that_is_gone_in_the_end_is_an_error(source: Path, tmp_path: Path) -> None:
    """A dataset without its pairs would look complete."""
    plan, lines = plan_for(source, tmp_path)
    (tmp_path / finished_shards.PARTS).mkdir()
    write_parts(plan, lines, range(PARTS), at_once=1)
    assert len(shard_tasks.all_parts(plan)) == PARTS
    (tmp_path / shard_tasks.shard_name(plan.prefix, 2)).unlink()
    with pytest.raises(StorageError, match="1 part of the dataset"):
        shard_tasks.all_parts(plan)


def requests(plan: Plan, lines: np.ndarray, numbers: range, store: FaultyStore) -> int:
    before = store.done["served"]
    write_parts(plan, lines, numbers, at_once=4)
    return store.done["served"] - before


def test_a_small_shard_takes_two_requests(source: Path, object_store: FaultyStore) -> None:
    """One for the tar and one for its note, however many there are; it was three for each."""
    plan, lines = plan_for(source, files.locate(f"s3://{BUCKET}/prepared"))
    assert requests(plan, lines, range(2), object_store) == 4
    assert requests(plan, lines, range(2, 6), object_store) == 8


@pytest.mark.parametrize(
    ("parts", "cpus", "at_once", "tasks"),
    [
        (100, 2, 1, 8),
        (3, 2, 1, 3),
        (100, 2, 4, 8),
        (16, 2, 4, 4),
        (8, 2, 4, 2),
        (3, 2, 4, 2),
        (1, 2, 4, 1),
        (40, 16, 4, 16),
    ],
)
def test_a_task_has_parts_to_write_at_once(parts: int, cpus: int, at_once: int, tasks: int) -> None:
    """For a disk four tasks a core; for a store fewer, but no core is idle."""
    assert shard_tasks._blocks(parts, cpus, at_once) == tasks
