"""The peers that write paired images into shards or tables: the same files' bytes, unchanged.

None of them inspects an image or syncs what it has written to the disk.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import webdataset

from benchmarks.common import find_peers_apart

SIDES = ("rain", "clean")
SHARD_BYTES = 128 * 2**20
SHARD_PAIRS = 250
"""About SHARD_BYTES; img2dataset counts samples (10,000 of its images by default)."""
DAFT_BATCH = 64
"""Pairs that Daft reads at once: with all of them at once it takes several times as long."""


def shard_writer(source: Path, keys: Sequence[str], out: Path) -> None:
    """webdataset's ShardWriter in a plain loop on one core; no digests."""
    out.mkdir()
    pattern = str(out / "shard-%06d.tar")
    with webdataset.ShardWriter(pattern, maxsize=SHARD_BYTES, verbose=0) as sink:
        for key in keys:
            data = {f"{side}.png": _read(source, side, key) for side in SIDES}
            sink.write({"__key__": key, **data, "json": {"key": key}})


def daft_parquet(source: Path, keys: Sequence[str], out: Path) -> None:
    """Daft on all cores: both files' bytes as columns of uncompressed Parquet, which is how it
    writes images (it has no writer of tars); no digests."""
    daft = _daft()
    paths = {side: [str(source / side / f"{key}.png") for key in keys] for side in SIDES}
    frame = daft.from_pydict({"key": list(keys), **paths}).into_batches(DAFT_BATCH)
    for side in SIDES:
        frame = frame.with_column(side, daft.col(side).download())
    frame.write_parquet(str(out), compression="none")


@cache
def _daft() -> Any:
    """Daft with threads of this process; with Ray at hand it would choose that."""
    import daft

    daft.set_runner_native()
    return daft


def img2dataset(source: Path, keys: Sequence[str], out: Path, pool: Executor) -> None:
    """The writer of img2dataset, WebDatasetSampleWriter, as its downloader drives it: a process per
    core, which writes whole shards; each image a sample with its SHA-256 (its default) in a JSON
    member and in a Parquet table per shard. Files are opened, where it would ask a server."""
    out.mkdir()
    starts = range(0, len(keys), SHARD_PAIRS)
    shards = [(source, keys[at : at + SHARD_PAIRS], out, at // SHARD_PAIRS) for at in starts]
    list(pool.map(_img2dataset_shard, shards))


def _img2dataset_shard(part: tuple[Path, Sequence[str], Path, int]) -> None:
    source, keys, out, number = part
    schema = pa.schema([(name, pa.string()) for name in ("key", "url", "status", "sha256")])
    writer = _sample_writer()(number, str(out), False, 5, schema, "png")
    for key, path in _images(source, keys):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        meta = {"key": key, "url": str(path), "status": "success", "sha256": digest}
        writer.write(data, key, None, meta)
    writer.close()


def _images(source: Path, keys: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for key in keys:
        for side in SIDES:
            yield f"{key}_{side}", source / side / f"{key}.png"


def _sample_writer() -> Any:
    """img2dataset's class, from its module alone: the package imports what only its downloader
    needs."""
    find_peers_apart()
    package = importlib.util.find_spec("img2dataset")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], "writer.py")
    spec = importlib.util.spec_from_file_location("img2dataset_writer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WebDatasetSampleWriter


def _read(source: Path, side: str, key: str) -> bytes:
    return (source / side / f"{key}.png").read_bytes()
