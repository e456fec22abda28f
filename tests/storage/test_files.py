"""Files of this machine: a name appears with all its bytes or not at all."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from derain.errors import DataError
from derain.storage import files
from derain.storage.atomic import new_file, new_large_file, remove_leftovers
from derain.storage.direct import PIECE


def test_a_new_file_has_its_name_when_its_bytes_are_there(tmp_path: Path) -> None:
    with new_file(tmp_path / "a") as file:
        file.write(b"abc")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"abc"


def test_a_failed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(TypeError), new_file(tmp_path / "a") as file:
        file.writelines([b"after", None])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".shard-000000.tar.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "shard-000000.tar").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_all_files_below_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    names = sorted(files.walk(tmp_path))
    assert names == ["a.png", "b/c.png", "b/d/e.png"]
    assert [stat.st_size for stat in files.stats(tmp_path, names) if stat] == [5, 7, 9]
    assert files.read_range(tmp_path / "a.png", 3, 9) == b"xx"


def test_links_are_followed_but_not_round_and_round(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    for folder in (source / "rain", other):
        folder.mkdir(parents=True)
        (folder / "1.png").touch()
    (source / "rain" / "up").symlink_to("..")
    (source / "rain" / "too").symlink_to("..")
    (source / "clean").symlink_to(other)
    (other / "back").symlink_to(source)
    assert sorted(files.walk(source)) == ["clean/1.png", "rain/1.png"]


def test_what_is_no_file_has_its_name_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    os.mkfifo(tmp_path / "pipe.png")
    names = sorted(files.walk(tmp_path))
    assert names == ["itself.png", "nowhere.png", "pipe.png"]
    assert list(files.stats(tmp_path, names)) == [None] * 3


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(Not a directory\)"):
        list(files.walk(tmp_path / "a.png"))


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.located("x") == tmp_path / "x"
    remote = files.located("s3://bucket/folder/") / "a.tar"
    assert (str(remote), remote.name) == ("s3://bucket/folder/a.tar", "a.tar")
    assert files.is_remote(remote)
    assert not files.is_remote(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 4096, PIECE - 1, PIECE, 3 * PIECE + 12345])
def test_a_large_file_has_every_byte_however_it_was_cut(tmp_path: Path, length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    path = tmp_path / "large"
    with new_large_file(path) as file:
        for at in range(0, length, 700_001):
            file.write(data[at : at + 700_001])
        assert not path.exists()
    assert path.read_bytes() == data


def test_a_large_file_where_the_disk_is_full(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"), new_large_file(tmp_path / "a") as it:
            it.write(bytes(4 * PIECE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())
