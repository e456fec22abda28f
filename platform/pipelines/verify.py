"""Every byte of a prepared dataset against its manifest, on all cores."""

import hashlib
import logging
import os
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
from derain.data.prepared.integrity import Problem
from derain.data.prepared.manifest import (
    INDEX,
    MANIFEST,
    Manifest,
    ShardEntry,
    read_index,
    read_manifest,
    rows_sha256,
)
from derain.errors import DataError
from derain.storage import files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """What `verify` found, as `--json` prints it."""

    ok: bool
    problems: list[Problem]
    pairs: int
    shards: int
    bytes: int
    manifest_sha256: str
    seconds: float


def verify(folder: str | Path) -> Verified:
    """Check manifest, index and every byte of every shard; finds all that differs.

    Raises DataError where there is no prepared dataset at all.
    """
    began = time.monotonic()
    place = files.located(folder)
    manifest, wrong = _manifest(place)
    if manifest is not None:
        log.info("verify: %s: %d shards, %d bytes", place, len(manifest.shards), manifest.bytes)
        wrong += _contents(place, manifest)
    return Verified(
        ok=not wrong,
        problems=wrong,
        pairs=manifest.pairs if manifest else 0,
        shards=len(manifest.shards) if manifest else 0,
        bytes=manifest.bytes if manifest else 0,
        manifest_sha256=manifest.sha256() if manifest else "",
        seconds=time.monotonic() - began,
    )


def _manifest(place: Path) -> tuple[Manifest | None, list[Problem]]:
    """A damaged manifest is a problem; where there is none, there is nothing to verify."""
    try:
        return read_manifest(place), []
    except DataError as error:
        if not (place / MANIFEST).is_file():
            raise
        return None, [Problem(MANIFEST, MANIFEST, "manifest", "as `prepare` wrote it", str(error))]


def _contents(place: Path, manifest: Manifest) -> list[Problem]:
    wrong = [*_strangers(place, manifest), *_descriptions(place, manifest)]
    index, damaged = _index(place, manifest)
    wrong += damaged
    if index is None:
        return wrong
    rows = _by_shard(index)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and reading leave the GIL
        found = pool.map(lambda entry: _shard(place, entry, rows.get(entry.name)), manifest.shards)
        wrong += [problem for shard in found for problem in shard]
    listed = {entry.name for entry in manifest.shards}
    wrong += [
        Problem(name, part["key"][0].as_py(), "index", "rows of listed shards", f"{len(part)} rows")
        for name, part in rows.items()
        if name not in listed
    ]
    return wrong


def _strangers(place: Path, manifest: Manifest) -> Iterator[Problem]:
    """Shards that the manifest does not list: other readers would take them in."""
    listed = {entry.name for entry in manifest.shards}
    for name in sorted(path.name for path in place.iterdir()):
        if re.fullmatch(r"[^.].*\.tar(\..*)?", name) and name not in listed:
            yield Problem(name, "all of it", "extra shard", f"{len(listed)} shards", "one more")


def _descriptions(place: Path, manifest: Manifest) -> Iterator[Problem]:
    """Without them other tools do not find the samples. The card's text is anybody's to add to."""
    for name in (CARD, CROISSANT):
        if not (place / name).is_file():
            yield Problem(name, name, "missing file", "as `prepare` wrote it", "no file")
        elif name == CROISSANT and (place / name).read_bytes() != croissant(manifest).encode():
            yield Problem(name, name, "content", "what `prepare` writes there", "other bytes")


def _index(place: Path, manifest: Manifest) -> tuple[pa.Table | None, list[Problem]]:
    """The index as far as it can be read, and whether its file is the manifest's."""
    path = place / INDEX
    if not path.is_file():
        return None, [Problem(INDEX, INDEX, "missing index", manifest.index_sha256, "no file")]
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    wrong = []
    if found != manifest.index_sha256:
        expected = f"sha256 {manifest.index_sha256}"
        wrong = [Problem(INDEX, INDEX, "index file", expected, f"sha256 {found}")]
    try:
        return read_index(data, INDEX), wrong
    except DataError as error:
        return None, [*wrong, Problem(INDEX, INDEX, "index", "a readable parquet file", str(error))]


def _by_shard(index: pa.Table) -> dict[str, pa.Table]:
    """The rows of each shard."""
    if not len(index):
        return {}
    names = index["shard"].to_numpy(zero_copy_only=False).astype(str)
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    neighbours = bool(np.all(order[:-1] < order[1:]))
    table = index if neighbours else index.take(order)
    ends: Sequence[int] = [*starts[1:].tolist(), len(names)]
    return {
        str(ordered[begin]): table.slice(begin, stop - begin)
        for begin, stop in zip(starts.tolist(), ends, strict=True)
    }


def _shard(place: Path, entry: ShardEntry, rows: pa.Table | None) -> list[Problem]:
    """What is wrong with a shard or with its rows of the index."""
    if rows is None:
        return [Problem(entry.name, "all of them", "index", f"{entry.pairs} rows", "none")]
    if rows_sha256(rows) == entry.rows_sha256:
        return integrity.problems(place / entry.name, entry, rows)
    return [integrity.row_problem(place / entry.name, entry, rows)]
