"""Local files: names, sizes, links, and paths as users write them."""

import os
import sys
from pathlib import Path

import pytest

from derain.errors import DataError, UsageError
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


def test_folders_may_be_deeper_than_python_recurses(tmp_path: Path) -> None:
    depth = 1200
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        at, above = os.open("d", os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(os.open("1.png", os.O_CREAT, dir_fd=at))
    os.close(at)
    found = list(files.walk(tmp_path))
    os.unlink(f"{tmp_path}/{'d/' * depth}1.png")  # noqa: PTH108
    for deep in range(depth, 0, -1):  # pytest would recurse to remove it
        os.rmdir(f"{tmp_path}/{'d/' * deep}")  # noqa: PTH106
    assert found == ["d/" * depth + "1.png"]


def test_what_the_kernel_makes_up_is_no_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "here").symlink_to("/proc/self")
    notes = files.WalkNotes()
    assert list(files.walk(tmp_path, notes)) == ["1.png"]
    assert notes.unreadable == {"here": "a view of the system, which holds no files"}
    with pytest.raises(DataError, match=r"/proc/self: cannot be read \(a view of the system"):
        list(files.walk(Path("/proc/self")))


def test_links_from_every_folder_to_every_other_do_not_go_on_forever(tmp_path: Path) -> None:
    """They have as many ways as there are orders of the folders."""
    names = [f"{number}" for number in range(12)]
    for name in names:
        (tmp_path / name).mkdir()
        for other in {*names} - {name}:
            (tmp_path / name / f"to-{other}").symlink_to(f"../{other}")
    with pytest.raises(DataError, match=f"more than {files.MOST_WAYS} ways through links"):
        list(files.walk(tmp_path))


def test_many_folders_may_link_to_a_common_one(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean/1.png").touch()
    for number in range(files.MOST_WAYS + 5):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/gt").symlink_to("../clean")
    assert len(list(files.walk(tmp_path))) == files.MOST_WAYS + 6


def test_a_path_that_leads_nowhere_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"~no-such-user/x: there is no home folder"):
        files.locate("~no-such-user/x")
    if sys.version_info < (3, 13):  # later ones keep the path as it is
        with pytest.raises(UsageError, match="leads back to itself"):
            files.locate(tmp_path / "loop/x")


def test_a_pipe_or_a_device_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            files.read_range(path, 0, 1)
