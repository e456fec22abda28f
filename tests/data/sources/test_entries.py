"""Entries: everything in a source is used, quarantined, or listed as ignored with a count."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.discover import count_pairs, find_pairs
from derain.data.sources.entries import find_entries
from derain.data.sources.layouts import layouts_of
from derain.data.sources.names import printable
from derain.errors import DataError
from derain.pipelines.datasets import datasets
from tests.data.sources.touched import pair_of, touch
from tests.folders import noise_image

NOBODY = 65534
AsOther = Callable[[Path], None]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def without_root() -> Iterator[Callable[[], None]]:
    """Permissions count: root becomes another user until the test ends."""

    def become() -> None:
        if os.geteuid() == 0:
            os.seteuid(NOBODY)

    yield become
    if os.getuid() == 0:
        os.seteuid(0)


def test_every_entry_is_counted_once(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jfif", "3.JPE", "4.dib"):
        pair_of(tmp_path, name)
    for name in ("5.heic", "6.AVIF", "7.gif", "8.ppm", "9.cr2"):
        touch(tmp_path / "input" / name)
    touch(tmp_path / "input/deep/a.png", tmp_path / "input/alone.png")
    noise_image(1, width=8, height=8).save(tmp_path / "input/disguised", "PNG")
    (tmp_path / "input/scene.jpg").mkdir()
    os.mkfifo(tmp_path / "input/live")
    os.mkfifo(tmp_path / "live.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "camera.png"))
    touch(*(tmp_path / name for name in ("README.md", "x.txt", "Thumbs.db", ".git/a.png")))
    touch(tmp_path / "desktop.ini", tmp_path / "target/.DS_Store")
    found = find_pairs("paired", tmp_path)
    assert sorted(pair.rain for pair in found.pairs) == [
        *("input/1.jpg", "input/2.jfif", "input/3.JPE", "input/4.dib"),
    ]
    assert [item.path for item in found.unpaired] == ["input/alone.png"]
    assert found.notes[2:] == (
        "Images without a place in the layout input/{name} + target/{name}, which were left out: "
        "3, such as camera.png.",
        "Images of kinds that are not read (1 .avif, 1 .cr2, 1 .gif, 1 .heic, 1 .ppm), which were "
        "left out: 5, such as input/5.heic. Convert them to PNG or JPEG.",
        "Images without the ending of one in their names, which were left out: 1, such as "
        "input/disguised. Rename them.",
        "Empty folders that are called like images: 1, such as input/scene.jpg.",
        "Other files, which were not used: 1 .md, 1 .txt, 1 without ending, such as README.md.",
    )


def test_a_source_of_unread_kinds_only_says_so(tmp_path: Path) -> None:
    touch(tmp_path / "input/1.heic", tmp_path / "target/1.heic")
    with pytest.raises(DataError, match=r"no image\. Images of kinds .*2 \.heic.*Convert them"):
        find_pairs("paired", tmp_path)


def test_the_folders_of_a_disk_do_not_stop_anything(
    open_folder: Path, without_root: Callable[[], None]
) -> None:
    """Case 15: lost+found on the root of a disk, which only root may read."""
    pair_of(open_folder)
    touch(*(open_folder / f"{it}/x.png" for it in ("lost+found", ".Trashes", "private")))
    for name in ("lost+found", ".Trashes", "private"):
        (open_folder / name).chmod(0o700)
    without_root()
    found = find_pairs("paired", open_folder)
    assert len(found.pairs) == 1
    assert found.notes == (
        "Folders outside the layout that cannot be read, and were left out: 1, such as private.",
        "Folders of the operating system that cannot be read: 2, such as .Trashes "
        "(Permission denied).",
    )
    assert [str(item) for item in found.left_out] == [found.notes[0]]


@pytest.mark.parametrize("folder", ["input", "target", "input/sub", "."])
def test_a_folder_of_the_layout_that_cannot_be_read_is_an_error(
    folder: str, open_folder: Path, without_root: Callable[[], None]
) -> None:
    pair_of(open_folder)
    touch(open_folder / "input/sub/2.png")
    (open_folder / folder).chmod(0o700)
    without_root()
    named = str((open_folder / folder).resolve())
    with pytest.raises(DataError, match=rf"{named}: cannot be read \(Permission denied\)"):
        find_pairs("paired", open_folder)


def test_a_scene_that_cannot_be_read_is_an_error(
    open_folder: Path, without_root: Callable[[], None]
) -> None:
    row = CATALOGUE["nturain-r"]
    touch(open_folder / "ra1_Rain/1.jpg", open_folder / "ra2_Rain/1.jpg", open_folder / "x/1.txt")
    for name in ("ra2_Rain", "x"):
        (open_folder / name).chmod(0o700)
    without_root()
    assert layouts_of(row, "test")
    with pytest.raises(DataError, match="ra2_Rain: cannot be read"):
        count_pairs(row, open_folder)


def test_datasets_are_found_beside_folders_that_cannot_be_read(
    open_folder: Path, without_root: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    touch(open_folder / "rain12/rainy/1.png", open_folder / "rain12/groundtruth/1.png")
    for name in ("lost+found", "Rain100L"):
        touch(open_folder / name / "norain-1.png")
        (open_folder / name).chmod(0o700)
    without_root()
    found = {row.name: row.found for row in datasets(open_folder) if row.found}
    assert found == {"rain12": {str(open_folder.resolve() / "rain12"): {"test": 1}}}
    assert "Rain100L: cannot be read" in caplog.text
    assert "lost+found" not in caplog.text


def test_names_that_are_not_utf_8_are_printed_with_escapes(tmp_path: Path) -> None:
    pair_of(tmp_path)
    for name in (b"\xd3\xea.gif", b"\xd3\xea.txt", b"\xd3\xea.png"):
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).touch()
    entries = find_entries(tmp_path)
    assert list(map(printable, entries.not_utf8)) == [r"\xd3\xea.png"]
    text = "\n".join(find_pairs("paired", tmp_path).notes)
    assert r"\xd3\xea.gif" in text
    assert r"\xd3\xea.txt" in text


@pytest.mark.parametrize("seed", range(12))
def test_nothing_vanishes(seed: int, tmp_path: Path) -> None:
    """Every visible file is in exactly one place of the account, whatever the names are."""
    random = np.random.default_rng(seed)
    folders = ["", "input", "Input", "target", "train/input", "train/target", "test/gt", "x/y"]
    endings = [".png", ".PNG", ".jpg", ".jfif", ".heic", ".txt", "", ".json"]
    stems = ["a", "A", "b", "é", "e\u0301", "1", "01"]
    names = {
        "/".join(filter(None, (str(random.choice(folders)), f"{stem}{ending}")))
        for stem in stems
        for ending in random.choice(endings, 5)
    } | {"input/z.png", "target/z.png"}
    touch(*(tmp_path / name for name in names))
    found = find_pairs("paired", tmp_path)
    entries = find_entries(tmp_path)
    account = [name for pair in found.pairs for name in pair.files]
    account += [item.path for item in found.unpaired]
    account += [*found.other_splits, *entries.others]
    account += [name for item in found.left_out for name in item.names]
    assert sorted(account) == sorted(names)
    assert find_pairs("paired", tmp_path) == found
