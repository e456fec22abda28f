"""Local files: names, sizes, links, and paths as users write them."""

import os
from pathlib import Path

import pytest

from derain.errors import DataError
from derain.storage import files


def test_all_files_below_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    names = sorted(files.walk(tmp_path))
    assert names == ["a.png", "b/c.png", "b/d/e.png"]
    assert [stat.st_size for stat in files.stats(tmp_path, names) if stat] == [5, 7, 9]
    assert files.read_range(tmp_path / "a.png", 3, 9) == b"xx"


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    for folder in (source / "rain", other):
        folder.mkdir(parents=True)
        (folder / "1.png").touch()
    (source / "rain" / "up").symlink_to("..")
    (source / "rain" / "too").symlink_to("..")
    (source / "clean").symlink_to(other)
    (other / "back").symlink_to(source)
    assert sorted(files.walk(source)) == ["clean/1.png", "rain/1.png"]


def test_anything_but_a_regular_file_has_a_name_and_no_stat(tmp_path: Path) -> None:
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


def test_paths_are_absolute_or_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.locate("x") == tmp_path / "x"
    remote = files.locate("s3://bucket/folder/") / "a.tar"
    assert (str(remote), remote.name) == ("s3://bucket/folder/a.tar", "a.tar")
    assert files.is_remote(remote)
    assert not files.is_remote(tmp_path)
