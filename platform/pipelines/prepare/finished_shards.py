"""What is stored about each finished part of a plan until the whole dataset is.

<out>/.parts/plan              the identity of the plan that the parts belong to
<out>/.parts/000000.parquet    the index rows of part 0; the rest is in the file's own metadata
<out>/.parts/renamed           see `shard_names`

A part is usually one shard. Its file is written after its tars, so a file that exists means that
they are complete.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from derain.data.prepared.index import INDEX, read_index, rows_sha256, write_index
from derain.data.prepared.manifest import Manifest, Quarantined, ShardEntry
from derain.data.prepared.remarks import Remarks
from derain.data.prepared.shards import WrittenShards
from derain.pipelines.prepare.index_statistics import IndexStatistics, digest_prefix
from derain.pipelines.prepare.shard_names import is_shard_name
from derain.storage.atomic import new_file, remove_leftovers
from derain.storage.in_parallel import in_parallel

log = logging.getLogger(__name__)

PARTS = ".parts"
RENAMED = f"{PARTS}/renamed"
_METADATA_KEY = b"derain"


@dataclass(frozen=True)
class FinishedPart:
    """A finished part of a plan: its shards, none if all of its pairs were quarantined."""

    entries: tuple[ShardEntry, ...]
    quarantined: tuple[Quarantined, ...]
    remarks: Remarks


@dataclass(frozen=True)
class IndexSummary:
    """What `write_joined_index` wrote and noticed."""

    entries: tuple[ShardEntry, ...]
    """Every shard, with its final name."""
    index_sha256: str
    duplicates: tuple[tuple[str, ...], ...]
    """Source names of rainy images with equal bytes, in groups."""
    notes: tuple[str, ...]


def record(out: Path, number: int, written: WrittenShards, mark: str) -> None:
    """Record that a part is finished; `mark` identifies the state of its source files."""
    tree = {
        "mark": mark,
        "entries": [asdict(entry) for entry in written.entries],
        "quarantined": [asdict(item) for item in written.quarantined],
        "remarks": dict(written.remarks),
    }
    note = json.dumps(tree)
    with new_file(_path(out, number)) as file:
        pq.write_table(written.rows.replace_schema_metadata({_METADATA_KEY: note}), file)


def find(out: Path, number: int, mark: str) -> FinishedPart | None:
    """A finished part; None if it or a tar is missing or its source files have changed since."""
    path = _path(out, number)
    if not path.is_file():
        return None
    try:
        schema = pq.read_schema(pa.BufferReader(path.read_bytes()))
        note = json.loads(schema.metadata[_METADATA_KEY])
        entries = tuple(ShardEntry(**entry) for entry in note["entries"])
        quarantined = tuple(Quarantined(**item) for item in note["quarantined"])
        remarks = {kind: (count, example) for kind, (count, example) in note["remarks"].items()}
        found = FinishedPart(entries, quarantined, remarks)
        is_same = note["mark"] == mark
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        log.warning("prepare: writing shard %d again: %s cannot be read (%s)", number, path, error)
        return None
    if not is_same:
        log.warning("prepare: writing shard %d again: its images have changed", number)
        return None
    if not all(_has_size(out / entry.name, entry.bytes) for entry in entries):
        return None
    return found


def write_joined_index(
    out: Path, parts: Sequence[Sequence[ShardEntry]], names: Mapping[str, str]
) -> IndexSummary:
    """Write the index from the rows of all parts, one row group in memory at a time.

    `parts` has the shards of each, as they were written, and `names` the final name of each. The
    statistics hold 16 bytes per pair beside it, to find equal images.
    """
    statistics = IndexStatistics()
    entries: list[ShardEntry] = []
    tables = statistics.counting(_shard_rows(out, parts, names, entries))
    index_sha256 = write_index(out / INDEX, tables)
    repeated = statistics.repeated()
    duplicates = tuple(_duplicates(out, len(parts), repeated)) if repeated else ()
    return IndexSummary(tuple(entries), index_sha256, duplicates, tuple(statistics.notes()))


def remove_stale_shards(out: Path, manifest: Manifest) -> None:
    """Remove shards of an earlier attempt that are no longer part of the dataset; other readers
    would include them."""
    listed = {entry.name for entry in manifest.shards}
    for path in out.iterdir():
        ours = is_shard_name(path.name, manifest.dataset, manifest.split)
        if ours and path.name not in listed:
            path.unlink(missing_ok=True)


def clean_up(out: Path) -> None:
    """Remove the parts, and the temporary files of killed workers."""
    if (out / PARTS).is_dir():
        parts = (out / PARTS).iterdir()
        list(in_parallel(lambda path: path.unlink(missing_ok=True), parts, out))
        (out / PARTS).rmdir()
    remove_leftovers(out)


def _path(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.parquet"


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _rows(out: Path, parts: int) -> Iterator[pa.Table]:
    """The index rows of each part."""
    paths = (_path(out, number) for number in range(parts))
    for path, data in in_parallel(lambda path: (path, path.read_bytes()), paths, out):
        yield read_index(data, str(path)).replace_schema_metadata(None)


def _shard_rows(
    out: Path,
    parts: Sequence[Sequence[ShardEntry]],
    names: Mapping[str, str],
    entries: list[ShardEntry],
) -> Iterator[pa.Table]:
    """The index rows of each shard with its final name; appends its entry to `entries`."""
    for shards, rows in zip(parts, _rows(out, len(parts)), strict=True):
        first = 0
        for entry in shards:
            table = rows.slice(first, entry.pairs)
            first += entry.pairs
            renamed, table = _renamed(entry, table, names[entry.name])
            entries.append(renamed)
            yield table


def _renamed(entry: ShardEntry, rows: pa.Table, name: str) -> tuple[ShardEntry, pa.Table]:
    """The entry and the rows of a shard under another name."""
    if name == entry.name:
        return entry, rows
    column = pa.array([name] * len(rows), pa.string())
    rows = rows.set_column(rows.schema.get_field_index("shard"), "shard", column)
    return replace(entry, name=name, rows_sha256=rows_sha256(rows)), rows


def _duplicates(out: Path, parts: int, repeated: set[int]) -> Iterator[tuple[str, ...]]:
    """Groups of equal rainy images, among those whose digest prefix is in `repeated`."""
    groups: dict[str, list[str]] = {}
    for rows in _rows(out, parts):
        columns: Mapping[str, Any] = rows.select(["rain_source", "rain_sha256"]).to_pydict()
        for name, digest in zip(*columns.values(), strict=True):
            if digest_prefix(digest) in repeated:
                groups.setdefault(digest, []).append(name)
    yield from (tuple(names) for names in groups.values() if len(names) > 1)
