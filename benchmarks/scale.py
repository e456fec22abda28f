"""Memory and time by the number of pairs: 200,000, a million, and on that slope ten million.

Opening a prepared dataset, as the first process of a node, which compares the digest of the whole
index, and as a later one; opening it and its pixels in a cache as the first process, which writes
down where each image is, and as a later one; opening it to decode pairs from its shards in any
order, as while a cache fills, first a pair of every row group, then 1,000 pairs; the rows of one
shard, of those that building a cache asks for; the order of an epoch. Each is measured in a new
process: its peak resident memory above that after importing, and the seconds. The dataset is an
index with names and digests as long and as hard to compress as real ones; its shards do not exist.
Memory is measured once, seconds are medians.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._small import write_index_only
from benchmarks.common import ROUNDS, Row, main, row
from derain.data.loading.cache import open_pixels
from derain.data.loading.cache_builder import _rows_of_shards
from derain.data.loading.cache_layout import kept_layout
from derain.data.loading.order import Recipe, epoch_order
from derain.data.loading.tars.members import Members
from derain.data.prepared.index import ROW_GROUP
from derain.data.prepared.manifest import open_prepared
from derain.storage.node import CACHES, cache_folder

FEW, MANY, MILLIONS = 200_000, 1_000_000, 10
STATUS = Path("/proc/self/status")


def rows(rounds: int = ROUNDS) -> list[Row]:
    """Memory and seconds of each work at two sizes, and what they would be at ten million."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {
            pairs: write_index_only(Path(scratch) / str(pairs), pairs) for pairs in (FEW, MANY)
        }
        os.environ[CACHES] = f"{scratch}/cache"
        time.sleep(1.5)  # an index of this moment gets no note
        for folder in folders.values():
            _write_cache(folder)
            _write_members(folder)
        for what in WORKS:
            found = {pairs: _measured(what, folders[pairs], rounds) for pairs in folders}
            for number, unit in enumerate(("MB", "ms")):
                lines += _lines(what, unit, found[FEW][number], found[MANY][number])
    return lines


def _lines(what: str, unit: str, few: float, many: float) -> list[Row]:
    slope = (many - few) / (MANY - FEW)
    extrapolated = many + slope * (MILLIONS * 10**6 - MANY)
    return [
        row(f"{what}, {MANY:,} pairs", unit, many, {f"{FEW:,} pairs": few}, more_is_better=False),
        row(f"{what}, {MILLIONS} M pairs", unit, extrapolated, {}, more_is_better=False),
    ]


def _measured(what: str, folder: Path, rounds: int) -> tuple[float, float]:
    """Megabytes and milliseconds."""
    command = [sys.executable, "-m", "benchmarks.scale", what, str(folder)]
    found = []
    for _ in range(rounds):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    (megabytes, *_), milliseconds = zip(*found, strict=True)
    return megabytes, statistics.median(milliseconds)


def _open_first(folder: Path) -> object:
    return open_prepared(folder, anew=True)


def _open(folder: Path) -> object:
    return open_prepared(folder)


def _write_places(folder: Path) -> object:
    return kept_layout(open_prepared(folder), Path(os.environ[CACHES], f"{time.time_ns()}.rgb"))


def _open_pixels(folder: Path) -> object:
    return open_pixels(open_prepared(folder), folder=None, budget_gib=2**30)


def _members_first(folder: Path) -> object:
    """A pair of every row group, in random order; each takes the time of the others."""
    members = Members(open_prepared(folder), cache_folder(None) / f"{time.time_ns()}.members")
    for first in np.random.default_rng(0).permutation(np.arange(0, int(folder.name), ROW_GROUP)):
        assert members[int(first)]
    return members


def _members(folder: Path) -> object:
    """1,000 pairs in random order, of which the records are there."""
    members = Members(open_prepared(folder), cache_folder(None) / f"{folder.name}.members")
    for pair in np.random.default_rng(1).integers(0, int(folder.name), 1000).tolist():
        assert members[pair]
    return members


def _write_members(folder: Path) -> None:
    members = Members(open_prepared(folder), cache_folder(None) / f"{folder.name}.members")
    for first in range(0, int(folder.name), ROW_GROUP):
        assert members[first]


def _write_cache(folder: Path) -> None:
    """A cache without content, which takes nothing of the disk."""
    dataset = open_prepared(folder)
    cache = cache_folder(None) / f"{dataset.manifest.sha256()}.rgb"
    with cache.open("wb") as file:
        file.truncate(kept_layout(dataset, cache).size)


def _order(folder: Path) -> object:
    return epoch_order(Recipe((int(folder.name),), seed=1), 1)


def _shard(folder: Path) -> object:
    """The rows of a shard in the middle, without finding out which they are."""
    dataset = open_prepared(folder)
    numbers = _rows_of_shards(dataset)
    middle = numbers[len(numbers) // 2]
    start = time.perf_counter()
    dataset.rows_at(middle)
    return time.perf_counter() - start


WORKS: dict[str, Callable[[Path], object]] = {
    "opening, first on a node": _open_first,
    "opening": _open,
    "places in a cache, first on a node": _write_places,
    "opening the pixels": _open_pixels,
    "a pair of every row group, first on a node": _members_first,
    "1,000 pairs to decode": _members,
    "rows of a shard": _shard,
    "order of an epoch": _order,
}


def _work(what: str, folder: Path) -> None:
    """In a new process: do the work; print the megabytes and milliseconds that it took."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    start = time.perf_counter()
    kept = WORKS[what](folder)
    seconds = kept if isinstance(kept, float) else time.perf_counter() - start
    print(json.dumps([(_status("VmHWM") - before) / 1e6, seconds * 1e3]))
    del kept


def _status(key: str) -> int:
    return int(STATUS.read_text().split(f"{key}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WORKS:
        _work(sys.argv[1], Path(sys.argv[2]))
    else:
        main(rows)
