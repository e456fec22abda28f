"""Seconds in which `prepare` writes shards to an S3 store that is 50 ms away, by their number.

Shards of one pair (0.52 MB of noise) from a local folder to moto's server behind a delay
(`_far_store`). They are small because moto takes bytes more slowly than a store does: so what is
measured is the waiting for requests, of which a shard of any size has some. The peer is the same
code with one shard at a time in each task. Ray has started before; plan, index and manifest are not
timed, whose requests were already sent side by side.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._far_store import BUCKET, far_store
from benchmarks.common import ROUNDS, Row, main, row, take_turns
from derain import cluster
from derain.pipelines.prepare import shard_tasks
from derain.pipelines.prepare.verb import prepare

FEW, MANY, SHARDS = 16, 48, 20_000
"""The last is what ten million pairs are, 500 in a shard."""
WIDTH, HEIGHT = 290, 300
OURS, ALONE = shard_tasks.AT_ONCE, 1


def rows(rounds: int = ROUNDS) -> list[Row]:
    """Both sizes, what one more shard takes, and what that predicts."""
    with tempfile.TemporaryDirectory() as scratch, far_store(), cluster.connected():
        sources = {size: _source(Path(scratch) / str(size), size) for size in (FEW, MANY)}
        numbers = count()
        works = {
            f"{size} {at_once}": _work(sources[size], at_once, numbers)
            for size in sources
            for at_once in (OURS, ALONE)
        }
        found = {name: statistics.median(each) for name, each in take_turns(works, rounds).items()}
    few, many = (
        {at_once: found[f"{size} {at_once}"] for at_once in (OURS, ALONE)} for size in (FEW, MANY)
    )
    more = {at_once: (many[at_once] - few[at_once]) / (MANY - FEW) for at_once in few}
    all_of_them = {at_once: many[at_once] + more[at_once] * (SHARDS - MANY) for at_once in few}
    return [
        _row(f"{FEW} shards", "s", few),
        _row(f"{MANY} shards", "s", many),
        _row("one more shard", "ms", {at_once: 1e3 * value for at_once, value in more.items()}),
        _row(f"{SHARDS:,} shards, on that slope", "s", all_of_them),
    ]


def _row(name: str, unit: str, seconds: dict[int, float]) -> Row:
    peers = {"one at a time": seconds[ALONE]}
    return row(name, unit, seconds[OURS], peers, more_is_better=False)


def _work(source: Path, at_once: int, numbers: Iterator[int]) -> Callable[[], float]:
    def run() -> float:
        shard_tasks.AT_ONCE = at_once
        seconds = 0.0
        real = shard_tasks.write_missing_shards

        def timed(*arguments: Any) -> None:
            nonlocal seconds
            began = time.perf_counter()
            real(*arguments)
            seconds = time.perf_counter() - began

        shard_tasks.write_missing_shards = timed
        try:
            done = prepare("paired", source, f"s3://{BUCKET}/{next(numbers)}", pairs_per_shard=1)
        finally:
            shard_tasks.write_missing_shards = real
        assert done.shards == len(list((source / "rain").iterdir()))
        return seconds

    return run


def _source(folder: Path, pairs: int) -> Path:
    rng = np.random.default_rng(0)
    for side in ("rain", "clean"):
        (folder / side).mkdir(parents=True)
        for number in range(pairs):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(folder / side / f"{number:05d}.png", compress_level=0)
    return folder


if __name__ == "__main__":
    main(rows)
