"""Decode the shards of a prepared dataset into one file of pixels, on all cores of the node.

Knows nothing of budgets and of other builders; `cache.py` calls it under a lock.
"""

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import Progress

from derain.data.images.decode import decode_image
from derain.data.prepared import integrity
from derain.data.prepared.manifest import Prepared, ShardEntry
from derain.data.prepared.shards import read_member
from derain.errors import DerainError
from derain.storage.files import is_remote

log = logging.getLogger(__name__)

SIDES = ("rain", "clean")
LINE_EVERY_S = 15.0
_WRITE_EVERY_S = 0.1
"""How long decoded pixels wait until the disk is told to take them."""
_PAIRS_A_TASK = 2
"""Few enough that many cores are busy to the end of a shard of some hundred pairs."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the images of each sample begin in a cache file: int64 bytes, in index order.

    A sample's rainy image comes first, then its clean one, unless the sample before has the same.
    """

    rain: np.ndarray
    clean: np.ndarray
    size: int
    """Of the whole file."""


def places(prepared: Prepared) -> Places:
    """The places of the samples of a prepared dataset."""
    shard, offset = prepared.column("shard"), prepared.column("clean_offset")
    own = np.ones(len(prepared), bool)
    own[1:] = (shard[1:] != shard[:-1]) | (offset[1:] != offset[:-1])
    image = 3 * prepared.column("height").astype(np.int64) * prepared.column("width")
    ends = np.cumsum(image * (1 + own))
    rain = ends - image * (1 + own)
    clean = (rain + image)[own][np.cumsum(own) - 1]
    return Places(rain, clean, int(ends[-1]))


def fill(prepared: Prepared, where: Places, path: Path) -> None:
    """Write every image at its place; the name appears when all bytes are on the disk.

    Raises DataError when a shard is not the one that the manifest names, DerainError when the disk
    is full.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    size = where.size
    log.info(
        "cache: decoding %d pairs of %s (%.2f GiB)", len(prepared), prepared.folder, size / 2**30
    )
    began = time.monotonic()
    try:
        with _explained(path.parent, size), temporary.open("wb") as out:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(out.fileno(), 0, size)  # a full disk is known before the work
            with _written_meanwhile(out):
                _decode_all(prepared, where, out)
            os.fsync(out.fileno())
            temporary.replace(path)
            log.info("cache: made in %.1f s: %s", time.monotonic() - began, path)
    finally:
        for leftover in path.parent.glob(f"{temporary.name}*"):
            leftover.unlink()


def decode_member(tar: BinaryIO, row: Mapping[str, Any], side: str) -> np.ndarray:
    """One image of an index row, from its open tar: uint8, HWC, RGB."""
    data = read_member(tar, row[f"{side}_offset"], row[f"{side}_length"])
    return decode_image(data, f"{tar.name}: {row[f'{side}_member']}")


def _decode_all(prepared: Prepared, where: Places, out: BinaryIO) -> None:
    """Shard by shard, its pairs on all cores, while the next shard is fetched and checked.

    Threads, since Pillow decodes outside the GIL; writes, since a full disk kills a mapping.
    """
    entries = prepared.manifest.shards
    names, both = prepared.column("shard"), np.stack([where.rain, where.clean], axis=1)
    with _shown(len(prepared)) as advance, ThreadPoolExecutor(cores() + 1) as pool:
        coming = [pool.submit(_at_hand, prepared, entry, out.name) for entry in entries[:1]]
        try:
            for number, entry in enumerate(entries):
                path, rows = coming.pop().result()
                ahead = entries[number + 1 : number + 2]
                coming += [pool.submit(_at_hand, prepared, entry, out.name) for entry in ahead]
                begins = both[names == entry.name]
                parts = (slice(at, at + _PAIRS_A_TASK) for at in range(0, len(rows), _PAIRS_A_TASK))
                for task in as_completed(
                    [pool.submit(_decode, path, rows[part], begins[part], out) for part in parts]
                ):
                    advance(task.result())
                if is_remote(prepared.folder):
                    path.unlink()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _at_hand(prepared: Prepared, entry: ShardEntry, beside: str) -> tuple[Path, pa.Table]:
    """A shard that is checked and on this machine, and its rows of the index: a remote one is
    fetched, once a node."""
    path = prepared.folder / entry.name
    if is_remote(path):
        remote, path = path, Path(f"{beside}.{entry.name}")
        path.write_bytes(remote.read_bytes())
    rows = prepared.index.filter(pc.equal(prepared.index["shard"], entry.name))
    integrity.require_whole(path, entry, rows)
    return path, rows


def _decode(path: Path, rows: pa.Table, begins: np.ndarray, out: BinaryIO) -> int:
    """Write some pairs of a shard, each image once; returns how many.

    `begins` has a row a pair: where its rainy and where its clean image begins.
    """
    with path.open("rb") as tar:
        for row, (rain, clean) in zip(rows.to_pylist(), begins.tolist(), strict=True):
            _write_at(out, rain, decode_member(tar, row, "rain"))
            if clean > rain:  # else it is that of a pair before
                _write_at(out, clean, decode_member(tar, row, "clean"))
    return len(rows)


def _write_at(out: BinaryIO, offset: int, image: np.ndarray) -> None:
    data = np.ascontiguousarray(image).data.cast("B")
    while data:
        written = os.pwrite(out.fileno(), data, offset)
        offset, data = offset + written, data[written:]


@contextlib.contextmanager
def _written_meanwhile(out: BinaryIO) -> Iterator[None]:
    """The disk writes while the cores decode, which leaves little for the last sync.

    Raises OSError at the end of the block where it could not.
    """
    done = threading.Event()
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(_write_until, done, out)
        try:
            yield
        finally:
            done.set()
        written.result()


def _write_until(done: threading.Event, out: BinaryIO) -> None:
    while not done.wait(_WRITE_EVERY_S):
        os.fsync(out.fileno())


@contextlib.contextmanager
def _explained(folder: Path, size: int) -> Iterator[None]:
    """A full disk as an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(folder).free
        raise DerainError(
            f"{folder}: no room for a cache of {size / 2**30:.2f} GiB ({error.strerror}; "
            f"{free / 2**30:.2f} GiB are free). Free some space, name another folder with "
            "data.cache_dir, or decode from the tars with data.cache_gib=0, which is slower."
        ) from None


def cores() -> int:
    """Cores that this process may use: a container or a batch system may give it a few only."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _shown(pairs: int) -> Iterator[Callable[[int], None]]:
    """Call it with pairs that are done: a bar on a terminal, a line now and then otherwise."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("decoding", total=pairs)
            yield lambda count: progress.advance(bar, count)
        return
    done, shown = 0, time.monotonic()

    def line(count: int) -> None:
        nonlocal done, shown
        done += count
        if time.monotonic() - shown >= LINE_EVERY_S:
            shown = time.monotonic()
            log.info("cache: %d of %d pairs decoded", done, pairs)

    yield line
