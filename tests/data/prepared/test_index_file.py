"""Of an index only what is asked for is read: opening costs no memory, a shard its own rows."""

import copy
import io
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks._small import write_index_only
from derain.data.loading.cache_builder import _rows_of_shards
from derain.data.loading.cache_layout import kept_layout
from derain.data.prepared import index, manifest
from derain.data.prepared.index import INDEX, INDEX_SCHEMA
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DataError

PAIRS, A_SHARD = 25_300, 700
ROWS_A_PIECE = 65_536


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 37 shards and three row groups; the last of each is shorter."""
    place = tmp_path_factory.mktemp("index") / "many"
    return write_index_only(place, PAIRS, a_shard=A_SHARD)


@pytest.fixture
def dataset(folder: Path) -> Prepared:
    return open_prepared(folder)


@pytest.fixture(scope="module")
def rows(folder: Path) -> pa.Table:
    return pq.read_table(folder / INDEX, schema=INDEX_SCHEMA)


def test_columns_and_rows_are_those_of_the_file(dataset: Prepared, rows: pa.Table) -> None:
    assert len(dataset) == PAIRS
    assert dataset.index == rows
    assert dataset.columns(["height", "key"]) == rows.select(["height", "key"])
    for numbers in ([20_999], [0, 9_999, 10_000, 25_299], [24_000, 3, 24_000], []):
        assert dataset.rows_at(numbers) == rows.take(pa.array(numbers, pa.int64()))


def test_a_part_has_its_rows_of_the_whole(dataset: Prepared, rows: pa.Table) -> None:
    numbers = np.array([5, 10_003, 25_000])
    part = dataset.part(numbers)
    assert len(part) == 3
    assert part.index == rows.take(numbers)
    assert part.rows_at([2, 0]) == rows.take([25_000, 5])
    assert part.column("key").tolist() == ["000000005", "000010003", "000025000"]
    assert part.shard_numbers().tolist() == [0, 14, 35]
    in_memory = Prepared(dataset.folder, dataset.manifest, rows).part(numbers)
    assert in_memory.sha256() == part.sha256() != dataset.sha256()


def test_another_process_gets_the_rows_themselves(dataset: Prepared, rows: pa.Table) -> None:
    sent = copy.deepcopy(dataset)
    assert sent.index == rows
    assert sent.shard_numbers().tolist() == dataset.shard_numbers().tolist()


def allocated(folder: Path) -> tuple[int, Prepared]:
    """Bytes that opening a dataset adds, those of Arrow too, beside the manifest."""
    document = manifest.read_manifest(folder)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    dataset = Prepared(folder, document, open_prepared(folder).stored)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept + pa.total_allocated_bytes() - before, dataset


def test_opening_keeps_less_than_a_byte_a_pair(folder: Path, tmp_path: Path) -> None:
    """It was 1,250 bytes a pair."""
    few, _one = allocated(write_index_only(tmp_path / "few", 2_000))
    many, _other = allocated(folder)
    assert many - few < PAIRS - 2_000


def test_the_places_in_a_cache_need_no_texts(dataset: Prepared) -> None:
    """A text for each row took a third of a second for a million pairs."""
    assert isinstance(dataset.stored, index.IndexFile)
    for (shards,) in dataset.stored.batches(["shard"]):
        assert pa.types.is_dictionary(shards.type)
        assert len(shards.dictionary) <= ROWS_A_PIECE / A_SHARD
    before = pa.total_allocated_bytes()
    numbers = dataset.shard_numbers()
    assert numbers.dtype == np.int32
    assert pa.total_allocated_bytes() - before < PAIRS
    assert _rows_of_shards(dataset)[36].tolist() == list(range(36 * A_SHARD, PAIRS))


def places(dataset: Prepared, cache: Path) -> int:
    """Bytes that a process keeps to find the images of a mapped cache."""
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    found = kept_layout(dataset, cache)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.path
    return kept + pa.total_allocated_bytes() - before


def test_the_places_in_a_cache_keep_less_than_a_byte_a_pair(
    dataset: Prepared, tmp_path: Path
) -> None:
    """It was 24, for what every process computed; now they are mapped, also by who writes them."""
    few = open_prepared(write_index_only(tmp_path / "few", 2_000))
    for _ in ("written", "read"):
        more = places(dataset, tmp_path / "m.rgb") - places(few, tmp_path / "f.rgb")
        assert more < (PAIRS - 2_000) / 10


def test_a_shard_costs_the_row_groups_of_its_rows(
    dataset: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cost all rows of the dataset: hours of filtering for ten million pairs."""
    read: list[list[int]] = []
    real = pq.ParquetFile.read_row_groups

    def noted(self: pq.ParquetFile, groups: list[int], *rest: Any, **options: Any) -> pa.Table:
        read.append(groups)
        return real(self, groups, *rest, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    for numbers in _rows_of_shards(dataset):
        dataset.rows_at(numbers)
    assert 3 <= len(read) <= 37
    assert {tuple(groups) for groups in read} <= {(0,), (1,), (2,), (0, 1), (1, 2)}
    assert sum(map(len, read)) <= 37 + 2


def test_nulls_are_counted_by_the_footer(
    dataset: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every opening of the pixels asks whether all pairs have a clean image."""
    stored = dataset.stored
    assert isinstance(stored, index.IndexFile)
    monkeypatch.setattr(stored, "select", None)
    assert stored.null_count("clean_offset") == 0
    dataset.require_clean()


@pytest.mark.parametrize("write_statistics", [True, False])
def test_nulls_are_those_of_the_rows(write_statistics: bool, rows: pa.Table) -> None:
    some = [None if number % 7 == 0 else number for number in range(PAIRS)]
    place = INDEX_SCHEMA.get_field_index("clean_offset")
    changed = rows.set_column(place, "clean_offset", pa.array(some, pa.int64()))
    file = io.BytesIO()
    pq.write_table(changed.drop_columns(["labels"]), file, write_statistics=write_statistics)
    stored = index.IndexFile(file, "index")
    assert stored.null_count("clean_offset") == some.count(None)
    assert stored.null_count("labels") == PAIRS


def test_a_shard_that_the_manifest_lacks_is_named(dataset: Prepared, rows: pa.Table) -> None:
    renamed = rows.set_column(1, "shard", [["other.tar"] * PAIRS])
    with pytest.raises(DataError, match=r"a shard other\.tar, the manifest none"):
        Prepared(dataset.folder, dataset.manifest, renamed).shard_numbers()


def test_threads_read_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lock a ParquetFile reports now and then that it cannot be read."""
    monkeypatch.setattr(index, "ROW_GROUP", 10)
    dataset = open_prepared(write_index_only(tmp_path / "small", 40, a_shard=10))
    rows = dataset.index

    def is_right(number: int) -> bool:
        numbers = [(7 * number) % 40, number % 40][: 1 + number % 2]
        return dataset.rows_at(numbers) == rows.take(numbers)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, range(500)))
