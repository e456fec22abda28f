<<<<<<< HEAD
"""A line is appended whole or not at all."""

import errno
import os
import resource
from collections.abc import Iterator
=======
"""Appending on a disk that fills up: all of it or nothing.

A limit of the file's size behaves like a full disk: a write beyond it stores what fits.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
>>>>>>> tune
from pathlib import Path

import pytest

from derain.storage.lines import append_whole

<<<<<<< HEAD
LINE = "x" * 99


@pytest.fixture
def full_at_1000() -> Iterator[None]:
    """Files may have 1,000 bytes: the disk takes the part of a write up to there, as a full one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_at_1000")
def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    handle = os.open(tmp_path / "lines", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(9):
        append_whole(handle, f"{LINE}\n".encode())
    append_whole(handle, b"short\n")
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        append_whole(handle, f"{LINE}\n".encode())
    append_whole(handle, b"also short\n")
    os.close(handle)
    text = (tmp_path / "lines").read_text()
    assert text == (LINE + "\n") * 9 + "short\nalso short\n"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    with (tmp_path / "lines").open("ab") as file:
        append_whole(file.fileno(), f"{LINE}\n".encode())
    assert (tmp_path / "lines").read_text() == LINE + "\n"
=======

@contextmanager
def room_for(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "lines", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield opened
    os.close(opened)


def test_what_does_not_fit_whole_is_taken_back(handle: int, tmp_path: Path) -> None:
    append_whole(handle, b"first\n")
    with room_for(10), pytest.raises(OSError, match="too large"):
        append_whole(handle, b"second\n")
    assert (tmp_path / "lines").read_bytes() == b"first\n"
    append_whole(handle, b"third\n")
    assert (tmp_path / "lines").read_bytes() == b"first\nthird\n"


def test_what_another_process_has_appended_since_stays(
    handle: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one writes between the part that fits and the refusal."""
    real_write = os.write

    def write(file: int, data: bytes) -> int:
        written = real_write(file, data)
        other = os.open(tmp_path / "lines", os.O_WRONLY | os.O_APPEND)
        real_write(other, b"|")
        os.close(other)
        return written

    with room_for(4):
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
        with pytest.raises(OSError, match="too large"):
            append_whole(handle, b"second\n")
        monkeypatch.undo()
    assert (tmp_path / "lines").read_bytes() == b"sec|"
>>>>>>> tune
