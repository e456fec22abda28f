"""A disk that is full or turns read-only during a run: a clear error, the last checkpoint whole.

Needs root, for the file systems of its own.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from derain import checkpoint
from derain.errors import DerainError
from tests.soak.soak_kills import config, train
from tests.soak.stack import needs_root


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    needs_root("a file system of its own")
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(small_disk: Path) -> None:
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
    print(f"\ndisk full at step {step + 3}; went on from step {step} to {step + 6}")


def test_a_disk_that_turns_read_only_stops_the_run(small_disk: Path) -> None:
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
