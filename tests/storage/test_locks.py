"""Locks between real processes: exclusive, shared, and released when their holder is killed."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from derain.storage.locks import LockHeldError, lock_shared, locked, try_lock
from tests.users import give_away, unprivileged

HOLDER = """
import sys
from pathlib import Path
from derain.storage.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

COUNTER = """
import sys, time
from pathlib import Path
from derain.storage.locks import locked
counter = Path(sys.argv[1])
for _ in range(30):
    with locked(counter.with_suffix(".lock")):
        number = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(number + 1))
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_processes_never_hold_a_lock_together(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    both = [subprocess.Popen([sys.executable, "-c", COUNTER, str(counter)]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert counter.read_text() == "60"


def test_a_held_lock_is_an_error_after_the_maximum_wait(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    waits: list[str] = []
    with holder(path):
        began = time.monotonic()
        with (
            pytest.raises(LockHeldError, match=r"\.lock"),
            locked(path, waits_s=0.3, on_wait=lambda: waits.append("waiting")),
        ):
            raise AssertionError("the lock is held by another process")
        assert 0.3 <= time.monotonic() - began < 30
    assert waits == ["waiting"]


@pytest.mark.parametrize("waits_s", [float("inf"), 60.0])
def test_a_waiting_process_gets_the_lock_of_a_killed_one(tmp_path: Path, waits_s: float) -> None:
    path = tmp_path / ".lock"
    with holder(path) as process, locked(path, waits_s=waits_s, on_wait=process.kill):
        assert process.wait(60) == -9


def test_a_free_lock_is_taken_without_waiting_and_released(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    waits: list[str] = []
    for _ in range(2):
        with locked(path, waits_s=0, on_wait=lambda: waits.append("x")), path.open() as file:
            assert not try_lock(file)
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError
    with path.open() as file:
        assert try_lock(file)
    assert waits == []


def test_a_shared_lock_excludes_only_exclusive_ones(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.touch()
    with path.open() as first, path.open() as second, path.open() as third:
        lock_shared(first)
        lock_shared(second)
        assert not try_lock(third)
        first.close()
        assert not try_lock(third)
        second.close()
        assert try_lock(third)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_work_goes_on_with_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with locked(tmp_path / ".lock", waits_s=0) as alone, (tmp_path / ".lock").open() as file:
            assert not alone
            assert not try_lock(file)
            assert try_lock(file, unsure=True)
            lock_shared(file)
    assert caplog.text.count("this file system has no locks") == 1


def test_another_error_of_a_lock_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_a_lock_file_of_another_user_serves(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / ".lock").touch(mode)
    give_away(folder)
    folder.chmod(0o555)

    with unprivileged(), locked(folder / ".lock"), (folder / ".lock").open("rb") as second:
        assert not try_lock(second)
    with unprivileged(), pytest.raises(PermissionError), locked(folder / "none.lock"):
        pass
