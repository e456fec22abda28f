"""What is kept of each finished shard until the dataset is whole: its rows and how it ended.

<out>/.parts/plan              the digest of the plan that all this belongs to
<out>/.parts/000000.parquet    the index rows of shard 0; a note in the file's own metadata

A part is written when its tar has its name, so that there is one means that the tar is whole.
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

from derain.data.prepared.manifest import INDEX, Quarantined, ShardEntry, read_index, write_index
from derain.data.prepared.shards import WrittenShard
from derain.pipelines.prepare.tally import Tally
from derain.storage.atomic import new_file, remove_leftovers

log = logging.getLogger(__name__)

PARTS = ".parts"
_NOTE = b"derain"


@dataclass(frozen=True)
class Kept:
    """A shard that is finished; `entry` is None where all of its pairs were left out."""

    entry: ShardEntry | None
    quarantined: tuple[Quarantined, ...]


@dataclass(frozen=True)
class Joined:
    """What `join` found on its way."""

    index_sha256: str
    duplicates: tuple[tuple[str, ...], ...]
    """Source names of rainy images with equal bytes, group by group."""
    notes: tuple[str, ...]
    """What a reader must know of what was written."""


def keep(out: Path, number: int, written: WrittenShard, mark: str) -> None:
    """Note that a shard is finished; `mark` names the state of the files it was made of."""
    entry = asdict(written.entry) if written.entry else None
    left_out = [asdict(item) for item in written.quarantined]
    note = json.dumps({"mark": mark, "entry": entry, "quarantined": left_out})
    with new_file(_path(out, number)) as file:
        pq.write_table(written.rows.replace_schema_metadata({_NOTE: note}), file)


def kept(out: Path, number: int, mark: str) -> Kept | None:
    """None for a shard that is missing, or was made of files that have been written to since."""
    path = _path(out, number)
    if not path.is_file():
        return None
    try:
        note = json.loads(pq.read_schema(pa.BufferReader(path.read_bytes())).metadata[_NOTE])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("prepare: making shard %d again: %s cannot be read (%s)", number, path, error)
        return None
    entry = ShardEntry(**note["entry"]) if note["entry"] else None
    if note["mark"] != mark:
        log.warning("prepare: making shard %d again: its images have been changed", number)
        return None
    if entry and not _has_size(out / entry.name, entry.bytes):
        return None
    return Kept(entry, tuple(Quarantined(**item) for item in note["quarantined"]))


def join(out: Path, shards: int) -> Joined:
    """Write the index from the rows of all shards, a row group of it in memory at a time.

    16 bytes a pair are held beside it, to find equal images.
    """
    tally = Tally()
    index_sha256 = write_index(out / INDEX, tally.passing(_rows(out, shards)))
    duplicates = tuple(_duplicates(out, shards, tally.repeated()))
    return Joined(index_sha256, duplicates, tuple(tally.notes()))


def drop_others(out: Path, entries: Iterable[ShardEntry]) -> None:
    """Remove the shards of an earlier attempt, whose images were changed since, that have no
    successor: other readers would take them in."""
    listed = {entry.name for entry in entries}
    for path in out.iterdir():
        if re.fullmatch(r"shard-\d{6}\.tar", path.name) and path.name not in listed:
            path.unlink(missing_ok=True)


def tidy(out: Path) -> None:
    """Remove what was only needed on the way, and what killed workers have left."""
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


def _duplicates(out: Path, shards: int, several: set[int]) -> Iterator[tuple[str, ...]]:
    """Read the rows again, but only where some digests begin alike."""
    groups: dict[str, list[str]] = {}
    for rows in _rows(out, shards) if several else ():
        columns: Mapping[str, Any] = rows.select(["rain_source", "rain_sha256"]).to_pydict()
        for name, text in zip(*columns.values(), strict=True):
            if int(text[:16], 16) in several:
                groups.setdefault(text, []).append(name)
    yield from (tuple(names) for names in groups.values() if len(names) > 1)
