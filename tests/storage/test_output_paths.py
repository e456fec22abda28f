"""Output paths are checked before the work: what is in the way is named."""

import os
from pathlib import Path

import pytest

from derain.errors import OccupiedError, StorageError, UsageError
from derain.storage.output_paths import check_file, check_folder
from tests.users import give_away, unprivileged


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for out in ("thesis.tex", "thesis.tex/a/b"):
        with pytest.raises(OccupiedError, match=r"thesis\.tex is a file"):
            check_folder(tmp_path / out)
    with pytest.raises(OccupiedError, match=r"thesis\.tex is a file"):
        check_file(tmp_path / "thesis.tex" / "scores.md")
    with pytest.raises(OccupiedError, match="is a folder, expected a file name"):
        check_file(tmp_path)


def test_new_folders_and_existing_files_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scores.md").touch()
    monkeypatch.chdir(tmp_path)
    check_folder(Path("a/b/c"))
    check_folder(tmp_path)
    check_file(Path("scores.md"))
    check_file(tmp_path / "a" / "scores.md")
    assert not (tmp_path / "a").exists()


def test_a_folder_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    give_away(tmp_path / "theirs")
    (tmp_path / "theirs").chmod(0o555)

    with unprivileged():
        for out in ("theirs", "theirs/new/below"):
            with pytest.raises(UsageError, match=r"no permission to write to \S+/theirs\."):
                check_folder(tmp_path / out)
        with pytest.raises(UsageError, match="no permission"):
            check_file(tmp_path / "theirs" / "scores.md")


@pytest.mark.parametrize(
    ("flags", "free", "message"), [(os.ST_RDONLY, 9, "read-only disk"), (0, 0, "is full")]
)
def test_a_disk_that_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int, free: int, message: str
) -> None:
    disk = list(os.statvfs(tmp_path))
    disk[4], disk[8] = free, flags  # f_bavail, f_flag
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(disk))

    with pytest.raises((UsageError, StorageError), match=message):
        check_folder(tmp_path / "new")
