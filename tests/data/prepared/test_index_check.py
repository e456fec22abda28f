"""A changed index is noticed, by the process that opens it or by the one that reads its rows; and
the whole file is read once on a node."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks._small import write_index_only
from derain.data.loading.cache import open_pixels
from derain.data.loading.cache_layout import kept_layout
from derain.data.loading.pixels import MappedPixels
from derain.data.prepared import index_check
from derain.data.prepared.index import INDEX
from derain.data.prepared.manifest import open_prepared
from derain.errors import DataError
from derain.storage import node
from derain.storage.node import cache_folder
from tests.users import give_away

DAMAGED = r"index\.parquet: damaged: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}\. `derainctl"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A note for every file, also for one that was written a moment ago."""
    monkeypatch.setattr(index_check, "_KNOWN", {})
    monkeypatch.setattr(index_check, "NOTED", 0)
    monkeypatch.setattr(index_check, "_SETTLED_NS", -(10**18))
    monkeypatch.setattr(index_check, "BLOCK", 1024)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every pass over a whole file."""
    passes: list[int] = []
    real = index_check._measured
    monkeypatch.setattr(index_check, "_measured", lambda file: passes.append(file) or real(file))
    return passes


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every piece that is read of an index file."""
    lengths: list[int] = []
    real = index_check._read_all

    def read(*where: int) -> bytes:
        data = real(*where)
        lengths.append(len(data))
        return data

    monkeypatch.setattr(index_check, "_read_all", read)
    return lengths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_index_only(tmp_path / "own", 3_000)


def later_process() -> None:
    """What this process remembers is forgotten; the note stays."""
    index_check._KNOWN.clear()


def note_of(folder: Path) -> Path:
    found = index_check._note_path(folder / INDEX)
    assert found is not None
    return found


def flip(path: Path, at: int) -> None:
    """Change a byte in place; size and inode stay."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_process_reads_the_whole_file_once(folder: Path, measured: list[int]) -> None:
    note_of(folder).parent.mkdir(parents=True)
    note_of(folder).mkdir()  # no note can be kept
    for _ in range(3):
        open_prepared(folder)
    assert len(measured) == 1
    later_process()
    open_prepared(folder)
    assert len(measured) == 2


def test_a_later_process_relies_on_the_note(folder: Path, measured: list[int]) -> None:
    first = open_prepared(folder)
    later_process()
    second = open_prepared(folder)
    assert second.index == first.index
    assert len(measured) == 1


def test_prepare_relies_on_nothing(folder: Path, measured: list[int]) -> None:
    for _ in range(2):
        open_prepared(folder, anew=True)
    later_process()
    open_prepared(folder, anew=True)
    assert len(measured) == 3


def test_a_small_file_has_no_note(
    folder: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_check, "NOTED", 2**24)
    open_prepared(folder)
    later_process()
    open_prepared(folder)
    assert len(measured) == 2
    assert not note_of(folder).exists()


def test_a_file_of_this_moment_has_no_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could change again without another time."""
    monkeypatch.setattr(index_check, "_SETTLED_NS", 10**18)
    open_prepared(folder)
    assert not note_of(folder).exists()


def edited(path: Path) -> None:
    before = path.stat()
    flip(path, 5_000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchanged(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    flip(other, 5_000)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [edited, exchanged, shortened])
def test_a_change_is_noticed_although_size_and_times_were_set_back(
    folder: Path, change: Any
) -> None:
    open_prepared(folder)
    change(folder / INDEX)
    for _ in range(2):
        with pytest.raises(DataError, match=DAMAGED):
            open_prepared(folder)
        later_process()


def test_a_byte_that_rots_is_noticed_where_it_is_read(folder: Path) -> None:
    """No time of the file changes then, so the note still holds: here it is made to."""
    rows = open_prepared(folder).index
    index, note = folder / INDEX, note_of(folder)
    flip(index, 5_000)
    stat = index.stat()
    tree = json.loads(note.read_text())
    version = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    note.write_text(json.dumps({**tree, "version": version}))
    later_process()
    dataset = open_prepared(folder)
    with pytest.raises(DataError, match=DAMAGED):
        _ = dataset.index
    assert dataset.column("height").tolist() == rows["height"].to_pylist()


@pytest.mark.parametrize("reason", ["boot", "owner", "format"])
def test_a_note_that_may_be_wrong_is_not_relied_on(
    reason: str, folder: Path, measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_prepared(folder)
    if reason == "boot":
        (tmp_path / "boot_id").write_text("another-boot\n")
        monkeypatch.setattr(node, "_BOOT", tmp_path / "boot_id")
    elif reason == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        give_away(note_of(folder))
    else:
        note_of(folder).write_text('{"version": []}')
    later_process()
    open_prepared(folder)
    assert len(measured) == 2


def test_the_index_of_another_dataset_has_the_same_message(folder: Path, tmp_path: Path) -> None:
    other = write_index_only(tmp_path / "other", 2_999)
    open_prepared(other)
    open_prepared(folder)
    (folder / "manifest.json").write_bytes((other / "manifest.json").read_bytes())
    for _ in range(2):
        with pytest.raises(DataError, match=DAMAGED):
            open_prepared(folder)
        later_process()


def opening(folder: Path, bytes_read: list[int]) -> int:
    """Bytes that a process reads of an index that another one has compared."""
    open_prepared(folder)
    later_process()
    bytes_read.clear()
    open_prepared(folder).require_clean()
    return sum(bytes_read)


def test_opening_reads_the_footer_only(folder: Path, tmp_path: Path, bytes_read: list[int]) -> None:
    """As many bytes for 3,000 pairs as for 9,000 in one row group; it was all of the file, 144 a
    pair. And a footer has less than a byte a pair of full row groups."""
    few = opening(folder, bytes_read)
    many = opening(write_index_only(tmp_path / "many", 9_000), bytes_read)
    more = opening(write_index_only(tmp_path / "more", 40_000), bytes_read)
    assert abs(many - few) <= 2 * index_check.BLOCK
    assert more - many < 40_000 - 9_000
    assert more < (tmp_path / "more" / INDEX).stat().st_size / 50


def opening_pixels(folder: Path, bytes_read: list[int]) -> int:
    """The same with the pixels of a cache, of which there is only the size."""
    dataset = open_prepared(folder)
    cache = cache_folder(None) / f"{dataset.manifest.sha256()}.rgb"
    size = kept_layout(dataset, cache).size
    with cache.open("wb") as file:
        file.truncate(size)
    later_process()
    bytes_read.clear()
    pixels = open_pixels(open_prepared(folder), folder=None, budget_gib=size / 2**30)
    assert isinstance(pixels, MappedPixels)
    assert not pixels[len(pixels) - 1].any()
    return sum(bytes_read)


def test_opening_the_pixels_reads_nothing_more(
    folder: Path, tmp_path: Path, bytes_read: list[int]
) -> None:
    """It read four columns, of which the names of shards as texts took 0.4 s for a million."""
    assert opening_pixels(folder, bytes_read) == opening(folder, bytes_read)
    more = write_index_only(tmp_path / "more", 40_000)
    assert opening_pixels(more, bytes_read) == opening(more, bytes_read)


def test_columns_cost_their_own_blocks(folder: Path, bytes_read: list[int]) -> None:
    dataset = open_prepared(folder)
    bytes_read.clear()
    dataset.columns(["height", "width"])
    assert sum(bytes_read) < 10 * index_check.BLOCK


def test_an_index_that_is_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / INDEX).unlink()
    os.mkfifo(folder / INDEX)
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read .*not a regular file"):
        open_prepared(folder)
