"""Atomic writes: a name appears with all of its bytes or not at all, also after a kill."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from derain.storage.atomic import (
    new_file,
    new_folder,
    new_large_file,
    remove_leftovers,
    write_text,
)
from derain.storage.direct import PIECE

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from derain.storage import atomic
with getattr(atomic, sys.argv[1])(Path(sys.argv[2])) as new:
    if isinstance(new, Path):
        (new / "half").write_bytes(b"half")
    else:
        new.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    with new_file(tmp_path / "a") as file:
        file.write(b"abc")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"abc"
    write_text(tmp_path / "b", "Größe\n", durable=False)
    assert (tmp_path / "b").read_bytes() == "Größe\n".encode()
    assert names(tmp_path) == ["a", "b"]


def test_an_exception_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(TypeError), new_file(tmp_path / "a") as file:
        file.writelines([b"after", None])  # type: ignore[list-item]
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as raised, new_file(tmp_path / "none" / "a"):
        raise AssertionError("the folder does not exist")
    assert raised.value.filename == str(tmp_path / "none" / "a")


def test_an_error_of_another_file_names_that_one(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(FileNotFoundError) as raised, new_file(tmp_path / "a") as file:
        file.write(gone.read_bytes())
    assert raised.value.filename == str(gone)
    assert not names(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 4096, PIECE - 1, PIECE, 3 * PIECE + 12345])
def test_a_large_file_has_every_byte_however_it_was_written(tmp_path: Path, length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    path = tmp_path / "large"
    with new_large_file(path) as file:
        for at in range(0, length, 700_001):
            file.write(data[at : at + 700_001])
        assert not path.exists()
    assert path.read_bytes() == data


def test_a_large_file_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"), new_large_file(tmp_path / "a") as file:
            file.write(bytes(4 * PIECE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert names(tmp_path) == []


def test_a_new_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "a") as folder:
        (folder / "one").write_bytes(b"1")
        (folder / "two").write_bytes(b"2")
        assert not (tmp_path / "deep" / "a").exists()
    assert names(tmp_path / "deep") == ["a"]
    assert names(tmp_path / "deep" / "a") == ["one", "two"]


def test_a_new_folder_replaces_an_existing_one(tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "old").write_bytes(b"old")
    with new_folder(tmp_path / "a") as folder:
        (folder / "new").write_bytes(b"new")
        assert names(tmp_path / "a") == ["sub"]
    assert names(tmp_path / "a") == ["new"]
    assert names(tmp_path) == ["a"]


def test_an_exception_keeps_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_bytes(b"old")
    with pytest.raises(TypeError), new_folder(tmp_path / "a") as folder:
        (folder / "new").open("wb").writelines([b"new", None])  # type: ignore[list-item]
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["old"]


@pytest.mark.parametrize("writer", ["new_file", "new_large_file", "new_folder"])
def test_a_killed_writer_leaves_only_hidden_leftovers(tmp_path: Path, writer: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / ".hidden").write_bytes(b"of somebody else")
    command = [sys.executable, "-c", KILLED_WRITER, writer, str(tmp_path / "a")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (leftover,) = set(names(tmp_path)) - {"other", ".hidden"}
    assert leftover.startswith(".a.")
    assert leftover.endswith(".tmp")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "other"]


@pytest.mark.parametrize("name", ["x" * 255, "雨" * 85, "\udcd3" * 200 + "x" * 55])
def test_a_name_of_255_bytes_can_be_written(tmp_path: Path, name: str) -> None:
    with new_folder(tmp_path / "folders" / name):
        pass
    write_text(tmp_path / name, "whole")
    with new_large_file(tmp_path / f"{name[:-1]}y") as file:
        file.write(b"whole")

    assert (tmp_path / name).read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 3
