"""A disk fills up or turns read-only: a clear error, and the last checkpoint or shard is whole.

Needs root, to mount file systems.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from derain.data.prepared.manifest import MANIFEST
from derain.errors import DerainError, StorageError, UsageError
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from derain.training import checkpoint
from tests.folders import write_scenes
from tests.soak.in_process import config, train
from tests.soak.stack import needs_root


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    needs_root("mounting a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_run_stops_on_a_full_disk_and_resumes_once_there_is_room(small_disk: Path) -> None:
    wanted = config(small_disk)
    (small_disk / "ballast").write_bytes(bytes(1 << 20))
    unbounded = wanted.replaced({"train.keep_checkpoints": 10**6}, "soak")
    with pytest.raises(DerainError, match=r"cannot be written.*No space left.*--resume"):
        train(unbounded, 0)
    saved = checkpoint.newest(wanted.folder)
    assert saved is not None
    checkpoint.load(saved.folder)
    (small_disk / "ballast").unlink()
    step = saved.state.step
    train(wanted.replaced({"train.steps": step + 6}, "soak"), 0)
    after = checkpoint.newest(wanted.folder)
    assert after is not None
    assert after.state.step == step + 6
    print(f"\ndisk full at step {step + 3}; continued from step {step} to {step + 6}")


def test_a_run_stops_on_a_read_only_disk_and_resumes(small_disk: Path) -> None:
    wanted = config(small_disk).replaced({"train.steps": 9, "train.ledger": False}, "soak")
    train(wanted, 0)
    mount("-o", "remount,ro", str(small_disk))
    with pytest.raises((DerainError, OSError), match="Read-only file system"):
        train(wanted.replaced({"train.steps": 18}, "soak"), 0)
    saved = checkpoint.newest(wanted.folder)
    assert saved is not None
    assert saved.state.step == 9
    mount("-o", "remount,rw", str(small_disk))
    train(wanted.replaced({"train.steps": 18}, "soak"), 0)


def test_prepare_stops_on_a_full_disk_and_continues_once_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    source = write_scenes(tmp_path / "source", 8, rains=2, width=450, height=420)
    whole = prepare("rain14000", source, tmp_path / "whole", shard_mib=1)
    full = small_disk / "out"
    with pytest.raises(StorageError, match=r"\.tar: No space left on device\. Free some space"):
        prepare("rain14000", source, full, shard_mib=1)
    kept = len(list(full.glob("*.tar")))
    assert not (full / MANIFEST).exists()
    mount("-o", "remount,size=64m", str(small_disk))
    done = prepare("rain14000", source, full, shard_mib=1)
    assert done.manifest_sha256 == whole.manifest_sha256
    assert verify(full).ok
    mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(UsageError, match="read-only disk"):
        prepare("rain14000", source, small_disk / "another", shard_mib=1)
    print(f"\nprepare: disk full with {kept} of {whole.shards} shards written; the same bytes")
