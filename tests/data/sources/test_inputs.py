"""The images that a user names for a command: files, folders and what is in them."""

import os
from pathlib import Path

import pytest

from derain.data.sources.inputs import find_inputs
from derain.errors import DataError
from tests.data.images.odd_images import NOISE, encoded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "below/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(NOISE))
    os.mkfifo(tmp_path / "live.png")
    (tmp_path / "phone.heic").write_bytes(b"\0")
    return tmp_path


def test_a_folder_is_searched_with_all_below_it(folder: Path) -> None:
    found = find_inputs([folder])
    assert [image.name for image in found.images] == ["a.jpg", "b.png", "below/c.png"]
    assert {image.folder for image in found.images} == {folder.name}
    assert [item.path for item in found.left_out] == [str(folder / "live.png")]
    assert "phone.heic" in found.notes[0]


def test_or_without_what_is_below_which_is_noted(folder: Path) -> None:
    found = find_inputs([folder], below=False)
    assert [image.name for image in found.images] == ["a.jpg", "b.png"]
    assert "below it, which were not used: 1, such as below/c.png" in "\n".join(found.notes)


def test_a_file_that_is_named_is_used_whatever_its_name(folder: Path) -> None:
    (folder / "b.png").rename(folder / "nameless")
    (image,) = find_inputs([folder / "nameless"]).images
    assert (image.name, image.folder) == ("nameless", "")


@pytest.mark.parametrize("name", ["live.png", "nowhere"])
def test_what_is_neither_file_nor_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match=name):
        find_inputs([folder, folder / name])
