"""Output paths are checked before the work: what is in the way is named."""

from pathlib import Path

import pytest

from derain.errors import OccupiedError
from derain.storage.output_paths import check_file, check_folder


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
