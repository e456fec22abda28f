"""Appending on a disk that fills up: all of it or nothing.

A limit of the file's size behaves like a full disk: a write beyond it stores what fits.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from derain.storage.lines import append_whole
from tests.processes import room_for


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
