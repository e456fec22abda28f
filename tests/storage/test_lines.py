"""A line is appended whole or not at all."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from derain.storage.lines import append_whole

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
