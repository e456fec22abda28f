"""index.parquet: one row per pair, with the offset and sha256 of each member of its shard."""

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from derain.errors import DataError
from derain.storage.atomic import new_file

INDEX = "index.parquet"
ROW_GROUP = 10_000
"""Minimum number of rows in a row group, except the last."""

INDEX_SCHEMA = pa.schema(
    [("key", pa.string()), ("shard", pa.string())]
    + [
        (f"{side}_{name}", kind)
        for side in ("rain", "clean")
        for name, kind in (
            ("member", pa.string()),
            ("offset", pa.int64()),
            ("length", pa.int64()),
            ("sha256", pa.string()),
            ("source", pa.string()),
        )
    ]
    + [
        ("json_offset", pa.int64()),
        ("json_length", pa.int64()),
        ("json_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("labels", pa.string()),
    ]
)


def read_index(data: bytes, name: str) -> pa.Table:
    """The rows of an index file. Raises DataError that names it when it cannot be read."""
    try:
        return pq.read_table(pa.BufferReader(data), schema=INDEX_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: cannot be read ({error}).") from None


class IndexFile:
    """An index file of which columns and rows are read when they are needed.

    It keeps the file open, so the rows are always those of the file that was checked. Several
    threads may read; another process gets the rows themselves.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        """`file` is at any position; `name` is for messages. Raises DataError if it is no index."""
        self._name = name
        self._lock = threading.RLock()
        self._last: tuple[list[int], pa.Table] | None = None
        with self._reading():
            # A text for each row would take 35 times as long, for a shard has hundreds of rows;
            # what is read in advance would be kept: 5 bytes a row for the places in a cache.
            self._parquet = pq.ParquetFile(file, read_dictionary=["shard"], pre_buffer=False)
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._begins = np.cumsum([0, *sizes])

    def __reduce__(self) -> tuple[Any, ...]:
        return pa.Table.from_batches, (self.select(INDEX_SCHEMA.names).to_batches(), INDEX_SCHEMA)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self._begins[-1])

    def select(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows."""
        with self._reading():
            return _fitting(self._parquet.read(self._existing(names)), names)

    def null_count(self, name: str) -> int:
        """Rows without a value in a column, by the statistics in the footer if they are there."""
        metadata = self._parquet.metadata
        if name not in metadata.schema.names:
            return self.num_rows
        at = metadata.schema.names.index(name)
        groups = range(metadata.num_row_groups)
        found = [metadata.row_group(group).column(at).statistics for group in groups]
        if all(each is not None and each.has_null_count for each in found):
            return sum(each.null_count for each in found)
        return int(self.select([name]).column(0).null_count)

    def take(self, numbers: np.ndarray) -> pa.Table:
        """All columns of some rows; reads the row groups that they are in, and keeps a single one,
        as its other rows are often next."""
        groups = np.searchsorted(self._begins, numbers, side="right") - 1
        read, group_of = np.unique(groups, return_inverse=True)
        sizes = self._begins[read + 1] - self._begins[read]
        places = numbers - self._begins[groups] + (np.cumsum(sizes) - sizes)[group_of]
        return self._row_groups(read.tolist()).take(places)

    def _row_groups(self, groups: list[int]) -> pa.Table:
        names = INDEX_SCHEMA.names
        with self._reading():
            if self._last and groups == self._last[0]:
                return self._last[1]
            table = _fitting(self._parquet.read_row_groups(groups, self._existing(names)), names)
            if len(groups) == 1:
                self._last = groups, table
            return table

    def batches(self, names: Sequence[str]) -> Iterator[list[pa.Array]]:
        """Some columns, in pieces of at most 65,536 rows; names of shards as a dictionary."""
        with self._reading():
            for batch in self._parquet.iter_batches(columns=self._existing(names)):
                yield _listed(batch, names)

    def around(self, number: int, names: Sequence[str]) -> tuple[int, list[pa.Array]]:
        """Some columns of the row group that a row is in, as in `batches`, and its first row."""
        group = int(np.searchsorted(self._begins, number, side="right")) - 1
        with self._reading():
            read = self._parquet.read_row_group(group, self._existing(names), use_threads=False)
            (batch,) = read.combine_chunks().to_batches()
            return int(self._begins[group]), _listed(batch, names)

    def _existing(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self._parquet.schema_arrow.names]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """One thread at a time: a ParquetFile is not made for several."""
        try:
            with self._lock:
                yield
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self._name}: cannot be read ({error}).") from None


def _listed(batch: pa.RecordBatch, names: Sequence[str]) -> list[pa.Array]:
    return [
        batch.column(name)
        if name in batch.schema.names
        else pa.nulls(len(batch), INDEX_SCHEMA.field(name).type)
        for name in names
    ]


def _fitting(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Columns of INDEX_SCHEMA; those that an older file lacks are empty."""
    schema = pa.schema([INDEX_SCHEMA.field(name) for name in names])
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def rows_sha256(rows: pa.Table) -> str:
    """SHA-256 of index rows, independent of how they are stored and chunked."""
    return columns_sha256(rows[name] for name in INDEX_SCHEMA.names)


def columns_sha256(columns: Iterable[pa.ChunkedArray]) -> str:
    """`rows_sha256` of the columns of INDEX_SCHEMA, of which one is in memory at a time."""
    digest = hashlib.sha256()
    for column in columns:
        for part in _plain_bytes(column):
            digest.update(part)
    return digest.hexdigest()


def _plain_bytes(column: pa.ChunkedArray) -> Iterator[bytes | memoryview]:
    """The content of a column: which rows have a value, then the numbers, or lengths and texts."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    yield np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes()
    if not pa.types.is_string(array.type):
        yield array.fill_null(0).to_numpy().astype("<i8").tobytes()
        return
    array = array.fill_null("")
    yield pc.binary_length(array).to_numpy().astype("<i4").tobytes()
    _, offsets, text = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    if text is not None and len(array):
        yield memoryview(text)[ends[0] : ends[-1]]


def index_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of INDEX_SCHEMA."""
    return pa.Table.from_pylist(list(rows), schema=INDEX_SCHEMA)


def write_index(path: Path, tables: Iterable[pa.Table]) -> str:
    """Write tables of index rows to one file, in order; returns its sha256.

    At most one row group is held in memory, whatever the number of rows.
    """
    with new_file(path) as file:
        with pq.ParquetWriter(file, INDEX_SCHEMA, compression="zstd") as writer:
            for group in _row_groups(tables):
                writer.write_table(group, row_group_size=len(group))
        file.flush()
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    group: list[pa.Table] = []
    for table in tables:
        group.append(table)
        if sum(map(len, group)) >= ROW_GROUP:
            yield pa.concat_tables(group)
            group = []
    if group:
        yield pa.concat_tables(group)
