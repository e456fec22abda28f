"""Pairs a second into shards, against webdataset's ShardWriter and the limit of the machine.

4,000 pairs of 0.52 MB (two PNGs of noise) that are in the page cache. Ours inspects every image,
hashes every member, writes index and manifest and syncs all of it to disk, after Ray is up. The
peer is a plain loop that reads and writes the same bytes without looking at them, and without
syncing. The limit reads, hashes and writes the same bytes, one process a core, without syncing.
"""

import hashlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from benchmarks.common import Row, Work, compare, main
from derain import cluster
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify

PAIRS = 4000
WIDTH, HEIGHT = 290, 300
SIDES = ("rain", "clean")
SHARD_BYTES = 128 * 2**20


def rows(rounds: int) -> list[Row]:
    """Preparing, and then verifying what was prepared."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch, _processes(cores) as pool:
        source = _source(Path(scratch) / "source")
        places = (Path(scratch) / f"out-{number}" for number in count())
        prepare_row = _preparing(source, places, pool, cores, rounds)
        return [prepare_row, _verifying(source, next(places), pool, cores, rounds)]


def _preparing(
    source: Path, places: Iterator[Path], pool: ProcessPoolExecutor, cores: int, rounds: int
) -> Row:
    keys = [f"{number:05d}" for number in range(PAIRS)]

    def ours(out: Path) -> None:
        prepare("paired", source, out)

    def shard_writer(out: Path) -> None:
        out.mkdir()
        pattern = str(out / "shard-%06d.tar")
        with webdataset.ShardWriter(pattern, maxsize=SHARD_BYTES, verbose=0) as sink:
            for key in keys:
                data = {f"{s}.png": (source / s / f"{key}.png").read_bytes() for s in SIDES}
                sink.write({"__key__": key, **data, "json": {"key": key}})

    def limit(out: Path) -> None:
        out.mkdir()
        parts = [(source, keys[core::cores], out / f"{core}.bin") for core in range(cores)]
        list(pool.map(_read_hash_write, parts))

    with cluster.connected():
        return compare(
            "prepare",
            "pairs/s",
            _timed(ours, places),
            {"ShardWriter": _timed(shard_writer, places)},
            amount=PAIRS,
            limit=_timed(limit, places),
            rounds=rounds,
        )


def _verifying(source: Path, out: Path, pool: ProcessPoolExecutor, cores: int, rounds: int) -> Row:
    """MB a second, against the sha256 of the same files, one process a core."""
    prepare("paired", source, out)
    tars = sorted(out.glob("*.tar"), key=lambda path: path.stat().st_size)

    def ours() -> None:
        assert verify(out).ok

    def limit() -> None:
        list(pool.map(_hash_files, [tars[core::cores] for core in range(cores)]))

    size = sum(path.stat().st_size for path in tars)
    return compare("verify", "MB/s", ours, {}, amount=size / 1e6, limit=limit, rounds=rounds)


def _timed(work: Callable[[Path], None], places: Iterator[Path]) -> Work:
    """Each time into a new folder, whose removal does not count."""

    def run() -> float:
        out = next(places)
        began = time.perf_counter()
        work(out)
        seconds = time.perf_counter() - began
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
    draw = np.random.default_rng(0)
    for side in SIDES:
        (folder / side).mkdir(parents=True)
        for number in range(PAIRS):
            pixels = draw.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, format="PNG", compress_level=0)
            (folder / side / f"{number:05d}.png").write_bytes(data.getvalue())
    return folder


if __name__ == "__main__":
    main(rows)
