"""Files of this machine: a name appears with all its bytes or not at all."""

from pathlib import Path

import pytest

from derain.data import files


def test_a_new_file_has_its_name_when_its_bytes_are_there(tmp_path: Path) -> None:
    with files.new_file(tmp_path / "a") as file:
        file.write(b"abc")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"abc"


def test_a_failed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(TypeError), files.new_file(tmp_path / "a") as file:
        file.writelines([b"after", None])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".shard-000000.tar.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "shard-000000.tar").write_bytes(b"whole")
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_all_files_below_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    names = sorted(files.walk(tmp_path))
    assert names == ["a.png", "b/c.png", "b/d/e.png"]
    assert [stat.st_size for stat in files.stats(tmp_path, names)] == [5, 7, 9]


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.located("x") == tmp_path / "x"
    remote = files.located("s3://bucket/folder/") / "a.tar"
    assert (str(remote), remote.name) == ("s3://bucket/folder/a.tar", "a.tar")
    assert files.is_remote(remote)
    assert not files.is_remote(tmp_path)
