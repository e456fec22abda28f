"""`verify`: check every byte of a prepared dataset against its manifest, on all cores."""

import hashlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from derain.data.prepared import integrity
from derain.data.prepared.card import CARD, CROISSANT, croissant
from derain.data.prepared.index import INDEX, read_index, rows_sha256
from derain.data.prepared.integrity import Problem
from derain.data.prepared.manifest import MANIFEST, Manifest, ShardEntry, read_manifest
from derain.data.prepared.shard_reader import parse_header
from derain.data.prepared.shards import BLOCK
from derain.errors import DataError
from derain.storage import files
from derain.storage.amounts import counted
from derain.storage.cores import available_cores

log = logging.getLogger(__name__)

SHOWN = 5
"""How many files a note names."""

_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})
"""Further endings of a tar that other readers take for a shard."""

REWORDED = (
    "other bytes; if an older version of derainctl prepared the dataset, run the same `derainctl "
    "prepare` again: it keeps the shards and writes this file anew"
)


@dataclass(frozen=True)
class Verified:
    """The result of `verify`, as `--json` prints it."""

    ok: bool
    problems: list[Problem]
    pairs: int
    shards: int
    bytes: int
    manifest_sha256: str
    seconds: float
    notes: list[str]
    """What was not checked, such as files that other tools put beside the shards."""


def verify(folder: str | Path) -> Verified:
    """Check manifest, index and every byte of every shard, and report every difference.

    Raises DataError if there is no prepared dataset at all.
    """
    began = time.monotonic()
    place = files.locate(folder)
    manifest, problems = _read_manifest(place)
    notes = []
    if manifest is not None:
        shards = counted(len(manifest.shards), "shard")
        log.info("verify: %s: %s, %s bytes", place, shards, f"{manifest.bytes:,}")
        extra, others = _unlisted(place, manifest)
        problems += [*extra, *_check_contents(place, manifest)]
        notes = _notes(others)
    for note in notes:
        log.warning("verify: %s", note)
    return Verified(
        ok=not problems,
        problems=problems,
        pairs=manifest.pairs if manifest else 0,
        shards=len(manifest.shards) if manifest else 0,
        bytes=manifest.bytes if manifest else 0,
        manifest_sha256=manifest.sha256() if manifest else "",
        seconds=time.monotonic() - began,
        notes=notes,
    )


def _read_manifest(place: Path) -> tuple[Manifest | None, list[Problem]]:
    """A damaged manifest is a problem; a missing one means that there is nothing to verify."""
    try:
        return read_manifest(place), []
    except DataError as error:
        if not (place / MANIFEST).is_file():
            raise
        return None, [Problem(MANIFEST, MANIFEST, "manifest", "as `prepare` wrote it", str(error))]


def _check_contents(place: Path, manifest: Manifest) -> list[Problem]:
    problems = [*_check_descriptions(place, manifest)]
    index, index_problems = _read_index(place, manifest)
    problems += index_problems
    if index is None:
        return problems
    rows = _rows_by_shard(index)
    with ThreadPoolExecutor(available_cores()) as pool:  # hashing and reading release the GIL
        found = pool.map(
            lambda entry: _check_shard(place, entry, rows.get(entry.name)), manifest.shards
        )
        problems += [problem for shard in found for problem in shard]
    listed = {entry.name for entry in manifest.shards}
    problems += [
        Problem(name, part["key"][0].as_py(), "index", "rows of listed shards", f"{len(part)} rows")
        for name, part in rows.items()
        if name not in listed
    ]
    return problems


def _unlisted(place: Path, manifest: Manifest) -> tuple[list[Problem], list[str]]:
    """What is in the folder and not in the manifest: tars, which other readers would include, as
    problems; the names of all other entries, which no reader takes for a shard."""
    listed = {entry.name for entry in manifest.shards}
    names = sorted(path.name for path in place.iterdir())
    unlisted = [name for name in names if name not in listed | {MANIFEST, INDEX, CARD, CROISSANT}]
    tars = [name for name in unlisted if _is_tar(place / name)]
    expected = counted(len(listed), "shard")
    extra = [Problem(name, "all of it", "extra shard", expected, "one more") for name in tars]
    return extra, [name for name in unlisted if name not in tars]


def _is_tar(path: Path) -> bool:
    """Whether a file is a tar by its name, or is another's copy of one by its content."""
    name = re.fullmatch(r"[^.].*\.tar(\.[^.]+)?(\..*)?", path.name)
    if name is None or name[1] is None or name[1] in _COMPRESSED:
        return name is not None
    return path.is_file() and parse_header(files.read_range(path, 0, BLOCK)) is not None


def _notes(others: Sequence[str]) -> list[str]:
    if not others:
        return []
    shown = ", ".join(others[:SHOWN])
    more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
    return [f"not part of the dataset and not checked: {shown}{more}"]


def _check_descriptions(place: Path, manifest: Manifest) -> Iterator[Problem]:
    """Card and Croissant metadata, which other tools need to find the samples. The text of the card
    may be edited."""
    for name in (CARD, CROISSANT):
        try:
            if not (place / name).is_file():
                yield Problem(name, name, "missing file", "as `prepare` wrote it", "no file")
            elif name == CROISSANT and (place / name).read_bytes() != croissant(manifest).encode():
                yield Problem(name, name, "content", "as `prepare` wrote it", REWORDED)
        except OSError as error:
            yield _unreadable(name, "as `prepare` wrote it", error)


def _read_index(place: Path, manifest: Manifest) -> tuple[pa.Table | None, list[Problem]]:
    """The index, None if it cannot be read, and whether its file is the one in the manifest."""
    path = place / INDEX
    if not path.is_file():
        return None, [Problem(INDEX, INDEX, "missing index", manifest.index_sha256, "no file")]
    try:
        data = path.read_bytes()
    except OSError as error:
        return None, [_unreadable(INDEX, f"sha256 {manifest.index_sha256}", error)]
    digest = hashlib.sha256(data).hexdigest()
    problems = []
    if digest != manifest.index_sha256:
        expected = f"sha256 {manifest.index_sha256}"
        problems = [Problem(INDEX, INDEX, "index file", expected, f"sha256 {digest}")]
    try:
        return read_index(data, INDEX), problems
    except DataError as error:
        unreadable = Problem(INDEX, INDEX, "index", "a readable parquet file", str(error))
        return None, [*problems, unreadable]


def _rows_by_shard(index: pa.Table) -> dict[str, pa.Table]:
    """The rows of each shard, as slices of the index where possible."""
    if not len(index):
        return {}
    names = index["shard"].to_numpy(zero_copy_only=False).astype(str)
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    is_sorted = bool(np.all(order[:-1] < order[1:]))
    table = index if is_sorted else index.take(order)
    ends: Sequence[int] = [*starts[1:].tolist(), len(names)]
    return {
        str(ordered[begin]): table.slice(begin, stop - begin)
        for begin, stop in zip(starts.tolist(), ends, strict=True)
    }


def _check_shard(place: Path, entry: ShardEntry, rows: pa.Table | None) -> list[Problem]:
    """The problems of a shard and of its rows in the index."""
    if rows is None:
        return [Problem(entry.name, "all of them", "index", f"{entry.pairs} rows", "none")]
    try:
        if rows_sha256(rows) == entry.rows_sha256:
            return integrity.find_problems(place / entry.name, entry, rows)
        return [integrity.find_row_problem(place / entry.name, entry, rows)]
    except OSError as error:
        return [_unreadable(entry.name, f"{entry.bytes} bytes", error)]


def _unreadable(name: str, expected: str, error: OSError) -> Problem:
    """A file that the system refuses to read; the others are checked nevertheless."""
    return Problem(name, name, "unreadable file", expected, error.strerror or str(error))
