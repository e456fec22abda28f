"""What is stored about each finished shard until the whole dataset is: its rows and its entry.

<out>/.parts/plan              the identity of the plan that the parts belong to
<out>/.parts/000000.parquet    the index rows of shard 0; the rest is in the file's own metadata

A part is written after its tar, so a part that exists means that its tar is complete.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from derain.data.prepared.index import INDEX, read_index, write_index
from derain.data.prepared.manifest import Quarantined, ShardEntry
from derain.data.prepared.shards import WrittenShard
from derain.pipelines.prepare.index_statistics import IndexStatistics, digest_prefix
from derain.storage.atomic import new_file, remove_leftovers

log = logging.getLogger(__name__)

PARTS = ".parts"
_METADATA_KEY = b"derain"


@dataclass(frozen=True)
class FinishedShard:
    """A finished shard; `entry` is None if all of its pairs were quarantined."""

    entry: ShardEntry | None
    quarantined: tuple[Quarantined, ...]


@dataclass(frozen=True)
class IndexSummary:
    """What `write_joined_index` wrote and noticed."""

    index_sha256: str
    duplicates: tuple[tuple[str, ...], ...]
    """Source names of rainy images with equal bytes, in groups."""
    notes: tuple[str, ...]


def record(out: Path, number: int, written: WrittenShard, mark: str) -> None:
    """Record that a shard is finished; `mark` identifies the state of its source files."""
    entry = asdict(written.entry) if written.entry else None
    quarantined = [asdict(item) for item in written.quarantined]
    note = json.dumps({"mark": mark, "entry": entry, "quarantined": quarantined})
    with new_file(_path(out, number)) as file:
        pq.write_table(written.rows.replace_schema_metadata({_METADATA_KEY: note}), file)


def find(out: Path, number: int, mark: str) -> FinishedShard | None:
    """A finished shard; None if it is missing or its source files have changed since."""
    path = _path(out, number)
    if not path.is_file():
        return None
    try:
        schema = pq.read_schema(pa.BufferReader(path.read_bytes()))
        note = json.loads(schema.metadata[_METADATA_KEY])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("prepare: writing shard %d again: %s cannot be read (%s)", number, path, error)
        return None
    entry = ShardEntry(**note["entry"]) if note["entry"] else None
    if note["mark"] != mark:
        log.warning("prepare: writing shard %d again: its images have changed", number)
        return None
    if entry and not _has_size(out / entry.name, entry.bytes):
        return None
    return FinishedShard(entry, tuple(Quarantined(**item) for item in note["quarantined"]))


def write_joined_index(out: Path, shards: int) -> IndexSummary:
    """Write the index from the rows of all shards, one row group in memory at a time.

    The statistics hold 16 bytes per pair beside it, to find equal images.
    """
    statistics = IndexStatistics()
    index_sha256 = write_index(out / INDEX, statistics.counting(_rows(out, shards)))
    repeated = statistics.repeated()
    duplicates = tuple(_duplicates(out, shards, repeated)) if repeated else ()
    return IndexSummary(index_sha256, duplicates, tuple(statistics.notes()))


def remove_stale_shards(out: Path, entries: Iterable[ShardEntry]) -> None:
    """Remove shards of an earlier attempt that are no longer part of the dataset; other readers
    would include them."""
    listed = {entry.name for entry in entries}
    for path in out.iterdir():
        if re.fullmatch(r"shard-\d{6}\.tar", path.name) and path.name not in listed:
            path.unlink(missing_ok=True)


def clean_up(out: Path) -> None:
    """Remove the parts, and the temporary files of killed workers."""
    if (out / PARTS).is_dir():
        for path in (out / PARTS).iterdir():
            path.unlink(missing_ok=True)
        (out / PARTS).rmdir()
    remove_leftovers(out)


def _path(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.parquet"


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _rows(out: Path, shards: int) -> Iterator[pa.Table]:
    for number in range(shards):
        path = _path(out, number)
        yield read_index(path.read_bytes(), str(path)).replace_schema_metadata(None)


def _duplicates(out: Path, shards: int, repeated: set[int]) -> Iterator[tuple[str, ...]]:
    """Groups of equal rainy images, among those whose digest prefix is in `repeated`."""
    groups: dict[str, list[str]] = {}
    for rows in _rows(out, shards):
        columns: Mapping[str, Any] = rows.select(["rain_source", "rain_sha256"]).to_pydict()
        for name, digest in zip(*columns.values(), strict=True):
            if digest_prefix(digest) in repeated:
                groups.setdefault(digest, []).append(name)
    yield from (tuple(names) for names in groups.values() if len(names) > 1)
