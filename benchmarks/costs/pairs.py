"""A prepared dataset of so many pairs, but for its images: parts, index, manifest, order.

The tars are files with holes, of the size of 250 pairs of 0.52 MB: nothing here reads them.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.costs.line import Values, forget_peak, peak_mb, resident_mb
from derain.data.loading.order import Recipe, epoch_order
from derain.data.prepared.index import INDEX, index_table, rows_sha256
from derain.data.prepared.manifest import (
    MANIFEST,
    Manifest,
    ShardEntry,
    open_prepared,
    write_manifest,
)
from derain.data.prepared.shards import WrittenShards
from derain.pipelines.prepare import finished_shards
from derain.storage.in_parallel import in_parallel

PAIRS_PER_SHARD = 250
IMAGE_BYTES = 260_000
MARK = "unchanged"


def measure(pairs: int, folder: Path) -> Values:
    """Costs of the dataset as a whole, in the order in which `prepare` and a run meet them."""
    out = folder / "prepared"
    (out / finished_shards.PARTS).mkdir(parents=True)
    shards = list(_shards(pairs))
    values: dict[str, float] = {}
    began = time.perf_counter()
    for number, shard in enumerate(shards):
        finished_shards.record(out, number, shard, MARK)
    values["recording all shards, s"] = time.perf_counter() - began
    for shard in shards:
        _hole(out / shard.entries[0].name, shard.entries[0].bytes)
    count = len(shards)
    del shards
    began = time.perf_counter()
    found = list(
        in_parallel(
            lambda it: finished_shards.find(out, *it), [(n, MARK) for n in range(count)], out
        )
    )
    assert all(found)
    values["finding them finished, s"] = time.perf_counter() - began
    written = [part.entries for part in found if part]
    names = {entry.name: entry.name for entries in written for entry in entries}
    forget_peak()
    before, began = resident_mb(), time.perf_counter()
    index = finished_shards.write_joined_index(out, written, names)
    values["joining the index, s"] = time.perf_counter() - began
    values["joining the index, MB of memory"] = peak_mb() - before
    values[f"{INDEX}, MB"] = (out / INDEX).stat().st_size / 1e6
    size = sum(entry.bytes for entry in index.entries)
    manifest = Manifest("paired", "train", pairs, size, index.entries, index.index_sha256, "", {})
    write_manifest(out, manifest)
    values[f"{MANIFEST}, MB"] = (out / MANIFEST).stat().st_size / 1e6
    return values | _reading(out, pairs)


def _reading(out: Path, pairs: int) -> dict[str, float]:
    """What every process that reads the dataset spends before its first pixel."""
    values: dict[str, float] = {}
    forget_peak()
    before, began = resident_mb(), time.perf_counter()
    prepared = open_prepared(out)
    values["opening it, s"] = time.perf_counter() - began
    values["opening it, MB of memory at most"] = peak_mb() - before
    values["held open, MB of memory"] = resident_mb() - before
    assert len(prepared) == pairs
    began = time.perf_counter()
    rows_sha256(prepared.index)
    values["identity of a part (--share), s"] = time.perf_counter() - began
    forget_peak()
    before, began = resident_mb(), time.perf_counter()
    epoch_order(Recipe((pairs,), seed=0), 0)
    values["order of an epoch, s"] = time.perf_counter() - began
    values["order of an epoch, MB of memory at most"] = peak_mb() - before
    return values


def _shards(pairs: int) -> Iterator[WrittenShards]:
    for number, first in enumerate(range(0, pairs, PAIRS_PER_SHARD)):
        name = f"paired-train-{number:06d}.tar"
        count = min(PAIRS_PER_SHARD, pairs - first)
        rows = index_table([_row(first + at, at, name) for at in range(count)])
        size = count * 2 * (IMAGE_BYTES + 1024)
        yield WrittenShards((ShardEntry(name, size, count, rows_sha256(rows)),), rows, ())


def _row(pair: int, at: int, shard: str) -> dict[str, Any]:
    row: dict[str, Any] = {"key": f"{pair:08d}", "shard": shard, "width": 481, "height": 321}
    for number, side in enumerate(("rain", "clean")):
        row |= {
            f"{side}_member": f"{pair:08d}.{side}.jpg",
            f"{side}_offset": (2 * at + number) * (IMAGE_BYTES + 1024),
            f"{side}_length": IMAGE_BYTES + pair % 997,
            f"{side}_sha256": hashlib.sha256(f"{pair} {side}".encode()).hexdigest(),
            f"{side}_source": f"{side}/{pair:08d}.jpg",
        }
    digest = hashlib.sha256(f"{pair}".encode()).hexdigest()
    labels = '{"density": "medium"}'
    return row | {"json_offset": at, "json_length": 300, "json_sha256": digest, "labels": labels}


def _hole(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
