"""What decoding needs of the index: right for every pair in any order, each row group read once on
a node, nothing kept in memory for a pair."""

import errno
import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks._small import write_index_only
from derain.data.loading import filling
from derain.data.loading.cache_layout import kept_layout
from derain.data.loading.filling import FillingPixels
from derain.data.loading.tars.members import DIGESTS, NUMBERS, RECORD, Members, members_path
from derain.data.loading.tars.tar_pixels import TarPixels
from derain.data.prepared.index import IndexFile
from derain.data.prepared.manifest import Prepared, open_prepared
from tests.users import give_away, unprivileged

PAIRS, FEW = 25_300, 2_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 37 shards, and of three row groups, of which two have 10,500 rows."""
    return write_index_only(tmp_path_factory.mktemp("index") / "many", PAIRS, a_shard=700)


@pytest.fixture
def dataset(folder: Path) -> Prepared:
    return open_prepared(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return members_path(tmp_path / "caches" / "0123.tiles.rgb")


@pytest.fixture
def groups_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with the first row of each row group that is read; columns of all rows never are."""
    found: list[int] = []
    real = IndexFile.around

    def noted(self: IndexFile, *arguments: Any) -> Any:
        begin, columns = real(self, *arguments)
        found.append(begin)
        return begin, columns

    def refused(*_: Any) -> Any:
        raise AssertionError("columns of all rows")

    monkeypatch.setattr(IndexFile, "around", noted)
    monkeypatch.setattr(IndexFile, "select", refused)
    monkeypatch.setattr(IndexFile, "batches", refused)
    return found


def are_right(members: Members, dataset: Prepared, pairs: list[int]) -> bool:
    rows = dataset.rows_at(pairs).select([*NUMBERS, *DIGESTS]).to_pylist()
    expected = [{"pair": pair, **row} for pair, row in zip(pairs, rows, strict=True)]
    return [members[pair] for pair in pairs] == expected


def some_of(pairs: int) -> list[int]:
    return [*np.random.default_rng(0).permutation(pairs)[:300].tolist(), 0, pairs - 1]


def test_every_pair_has_its_row_and_a_row_group_is_read_once_on_a_node(
    dataset: Prepared, path: Path, groups_read: list[int]
) -> None:
    assert are_right(Members(dataset, path), dataset, some_of(PAIRS))
    assert len(groups_read) == len(set(groups_read)) == 3
    assert path.stat().st_size == 112 * PAIRS
    assert are_right(Members(dataset, path), dataset, some_of(PAIRS))
    assert len(groups_read) == 3


def test_threads_read_a_row_group_once(
    dataset: Prepared, path: Path, groups_read: list[int]
) -> None:
    members = Members(dataset, path)
    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(members.__getitem__, range(64)))
    assert [row["rain_offset"] for row in rows] == [
        members[pair]["rain_offset"] for pair in range(64)
    ]
    assert groups_read == [0]


def test_an_index_in_memory_has_the_same_rows(dataset: Prepared, path: Path) -> None:
    in_memory = Prepared(dataset.folder, dataset.manifest, dataset.index)
    assert are_right(Members(in_memory, path), dataset, some_of(PAIRS))


@pytest.mark.parametrize("at", [0, 4, 12, 44, 107, 108, 111])
def test_a_record_that_was_damaged_is_made_again(
    at: int, dataset: Prepared, path: Path, groups_read: list[int]
) -> None:
    """Of the shard, the size, an offset, the first and the last digest, the checksum."""
    assert Members(dataset, path)[70]["height"] == 512
    data = bytearray(path.read_bytes())
    data[70 * RECORD.itemsize + at] ^= 1
    path.write_bytes(data)
    members = Members(dataset, path)
    assert are_right(members, dataset, [69, 71])
    assert groups_read == [0]
    assert are_right(members, dataset, [70])
    assert are_right(members, dataset, [70])
    assert groups_read == [0, 0]


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:0], lambda data: data[: 70 * 112 + 111], lambda data: bytes(len(data))],
)
def test_a_file_that_was_cut_or_has_holes_is_completed(
    change: Callable[[bytes], bytes], dataset: Prepared, path: Path
) -> None:
    """As after a restart of the machine, when not all bytes had reached the disk."""
    assert Members(dataset, path)[70]["height"] == 512
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert are_right(Members(dataset, path), dataset, [70, 3, 9_999])
    assert path.read_bytes() == before


def test_records_of_another_index_are_not_used(
    dataset: Prepared, path: Path, tmp_path: Path
) -> None:
    other = open_prepared(write_index_only(tmp_path / "other", FEW, a_shard=10))
    assert are_right(Members(other, path), other, some_of(FEW))
    assert are_right(Members(dataset, path), dataset, some_of(FEW))


def test_on_a_full_disk_the_rows_come_from_the_index(
    dataset: Prepared, path: Path, monkeypatch: pytest.MonkeyPatch, groups_read: list[int]
) -> None:
    def refused(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refused)
    assert are_right(Members(dataset, path), dataset, [5, 20_005, 6])
    assert groups_read == [0, 10_500, 0]


def test_where_it_cannot_be_written_the_file_is_a_temporary_one(
    dataset: Prepared, path: Path, groups_read: list[int]
) -> None:
    Members(dataset, path)[0]
    groups_read.clear()
    path.parent.chmod(0o555)
    give_away(path.parent)
    with unprivileged():
        members = Members(dataset, path)  # another user's
        elsewhere = Members(dataset, path.with_name("other.members"))
        assert are_right(members, dataset, [5, 20_005, 6])
        assert groups_read == [0, 10_500]
        assert are_right(elsewhere, dataset, [5, 20_005, 6])
    path.parent.chmod(0o755)
    assert list(path.parent.iterdir()) == [path]


def test_the_file_may_be_removed_at_any_time(dataset: Prepared, path: Path) -> None:
    members = Members(dataset, path)
    assert are_right(members, dataset, [3])
    path.unlink()
    assert are_right(members, dataset, [3, 12_000])


def tars(folder: Path, caches: Path) -> TarPixels:
    return TarPixels(open_prepared(folder), members_path(caches / "0123.rgb"))


def begun(folder: Path, caches: Path) -> FillingPixels:
    """Of a cache without content, which takes nothing of the disk."""
    dataset, cache = open_prepared(folder), caches / "0123.rgb"
    layout = kept_layout(dataset, cache)
    with filling.filling_path(cache).open("wb") as file:
        file.truncate(layout.size)
    with filling.done_path(filling.filling_path(cache)).open("wb") as file:
        file.truncate(2 * len(dataset))
    return FillingPixels(dataset, layout, cache)


def kept(opened: Callable[[Path, Path], Any], folder: Path, caches: Path) -> int:
    """Bytes that a process keeps which decodes pairs of every row group."""
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    pixels = opened(folder, caches)
    for pair in range(0, len(pixels), 500):
        assert pixels._members[pair]["height"] == 512
    found, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found + pa.total_allocated_bytes() - before


@pytest.mark.parametrize("opened", [tars, begun])
def test_decoding_keeps_less_than_a_byte_a_pair(
    opened: Callable[[Path, Path], Any], folder: Path, tmp_path: Path
) -> None:
    """Eleven columns of all rows took 241: 2.4 GB for ten million pairs. What is left are the
    manifest's shards, of which the larger dataset has 34 more."""
    few = write_index_only(tmp_path / "few", FEW, a_shard=700)
    kept(opened, few, tmp_path / "warm")  # what is imported meanwhile
    more = kept(opened, folder, tmp_path / "m") - kept(opened, few, tmp_path / "f")
    assert more < PAIRS - FEW


def test_another_process_opens_the_dataset_itself(folder: Path, tmp_path: Path) -> None:
    """It got the columns of all rows through a socket."""
    opened_there, arguments = tars(folder, tmp_path).__reduce__()
    assert arguments == (folder, tmp_path / "0123.members")
    assert len(opened_there(*arguments)) == PAIRS
