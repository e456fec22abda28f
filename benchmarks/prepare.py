"""Pairs per second into shards, against other writers and the limit of the machine.

4,000 pairs of 0.52 MB (two PNGs of noise) in the page cache. Ours inspects every image, hashes
every member, writes index and manifest and syncs everything to disk; starting Ray is not timed. The
peers read and write the same bytes, without inspecting or syncing them (`benchmarks/_writers.py`).
The limit reads, hashes and writes the same bytes with one process per core, without syncing.
"""

import hashlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import _writers
from benchmarks._writers import SIDES
from benchmarks.common import Row, Work, compare, find_peers_apart, installed, main
from derain import cluster
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify

PAIRS = 4000
WIDTH, HEIGHT = 290, 300


def rows(rounds: int) -> list[Row]:
    """Rows of `prepare`, and of `verify` on its output."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch, _processes(cores) as pool:
        source = _source(Path(scratch) / "source")
        folders = (Path(scratch) / f"out-{number}" for number in count())
        prepare_row = _preparing(source, folders, pool, cores, rounds)
        return [prepare_row, _verifying(source, next(folders), pool, cores, rounds)]


def _preparing(
    source: Path, folders: Iterator[Path], pool: ProcessPoolExecutor, cores: int, rounds: int
) -> Row:
    keys = [f"{number:05d}" for number in range(PAIRS)]

    def ours(out: Path) -> None:
        prepare("paired", source, out)

    def limit(out: Path) -> None:
        out.mkdir()
        parts = [(source, keys[core::cores], out / f"{core}.bin") for core in range(cores)]
        list(pool.map(_read_hash_write, parts))

    with cluster.connected():
        find_peers_apart()
        return compare(
            "prepare",
            "pairs/s",
            _timed(ours, folders),
            {who: _timed(write, folders) for who, write in peers(source, keys, pool).items()},
            amount=PAIRS,
            limit=_timed(limit, folders),
            rounds=rounds,
        )


def peers(source: Path, keys: list[str], pool: Executor) -> dict[str, Callable[[Path], None]]:
    """What each installed peer does to write the pairs of `keys` into a new folder."""
    found = {"ShardWriter": partial(_writers.shard_writer, source, keys)}
    if installed("daft"):
        found["daft"] = partial(_writers.daft_parquet, source, keys)
    if installed("img2dataset"):
        found["img2dataset_writer"] = partial(_writers.img2dataset, source, keys, pool=pool)
    return found


def _verifying(source: Path, out: Path, pool: ProcessPoolExecutor, cores: int, rounds: int) -> Row:
    """MB per second, against SHA-256 of the same files with one process per core."""
    prepare("paired", source, out)
    tars = sorted(out.glob("*.tar"), key=lambda path: path.stat().st_size)

    def ours() -> None:
        assert verify(out).ok

    def limit() -> None:
        list(pool.map(_hash_files, [tars[core::cores] for core in range(cores)]))

    size = sum(path.stat().st_size for path in tars)
    return compare("verify", "MB/s", ours, {}, amount=size / 1e6, limit=limit, rounds=rounds)


def _timed(work: Callable[[Path], None], folders: Iterator[Path]) -> Work:
    """Seconds of the work, each time into a new folder, whose removal is not timed."""

    def run() -> float:
        out = next(folders)
        start = time.perf_counter()
        work(out)
        seconds = time.perf_counter() - start
        shutil.rmtree(out)
        return seconds

    return run


def _processes(cores: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(cores, mp_context=get_context("spawn"))


def _read_hash_write(part: tuple[Path, list[str], Path]) -> None:
    source, keys, out = part
    buffer = memoryview(bytearray(2**20))
    with out.open("wb", buffering=0) as file:
        for key in keys:
            for side in SIDES:
                with (source / side / f"{key}.png").open("rb", buffering=0) as image:
                    data = buffer[: image.readinto(buffer)]
                hashlib.sha256(data).digest()
                file.write(data)


def _hash_files(paths: list[Path]) -> None:
    for path in paths:
        with path.open("rb", buffering=0) as file:
            hashlib.file_digest(file, "sha256")


def _source(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for side in SIDES:
        (folder / side).mkdir(parents=True)
        for number in range(PAIRS):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, format="PNG", compress_level=0)
            (folder / side / f"{number:05d}.png").write_bytes(data.getvalue())
    return folder


if __name__ == "__main__":
    main(rows)
