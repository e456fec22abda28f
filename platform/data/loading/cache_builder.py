"""Decode the shards of a prepared dataset into one cache file, on all cores of the node.

Budgets and other builders are the business of `cache`, which calls this module under a lock.
"""

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import Progress

from derain.data.images.decode import decode_image
from derain.data.images.likeness import almost_equal
from derain.data.loading import undecodable
from derain.data.loading.cache_layout import CacheLayout
from derain.data.prepared import integrity
from derain.data.prepared.manifest import Prepared, ShardEntry
from derain.data.prepared.shards import read_member
from derain.errors import DataError, StorageError
from derain.storage import amounts
from derain.storage.amounts import counted
from derain.storage.cores import available_cores
from derain.storage.files import is_remote

log = logging.getLogger(__name__)

SIDES = ("rain", "clean")
NEEDED = (
    "shard", "height", "width",
    "rain_member", "rain_offset", "rain_length", "rain_sha256",
    "clean_member", "clean_offset", "clean_length", "clean_sha256",
)  # fmt: skip
"""The columns of the index that decoding an image needs."""
LINE_EVERY_S = 15.0
_FLUSH_EVERY_S = 0.1
"""Interval at which decoded pixels are flushed to the disk."""
_PAIRS_A_TASK = 2
"""Small, so that many cores stay busy to the end of a shard of a few hundred pairs."""


class Writer(Protocol):
    """Writes the images of a dataset to a cache file, from several threads."""

    needs_both: bool
    """Whether a rainy image is written with the help of its clean one."""

    def write(
        self, begins: tuple[int, int], rainy: np.ndarray | None, clean: np.ndarray | None, /
    ) -> None:
        """Write the images of a pair, uint8 HWC, to their places in the layout.

        One that cannot be decoded is None. The clean one is there already if its place is before
        that of the rainy one; then it is None too, unless `needs_both`.
        """
        ...

    def finish(self) -> None:
        """Write what can be written only when all images are there."""
        ...


class PixelWriter:
    """Writes images as they are. Raises OSError if the disk has no room for all of them."""

    needs_both = False

    def __init__(self, out: BinaryIO, layout: CacheLayout) -> None:
        self._out = out
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, layout.size)  # fail on a full disk before decoding

    def write(
        self, begins: tuple[int, int], rainy: np.ndarray | None, clean: np.ndarray | None
    ) -> None:
        """Write the images that are not None."""
        for begin, image in zip(begins, (rainy, clean), strict=True):
            if image is not None:
                write_at(self._out, begin, image)

    def finish(self) -> None:
        """Nothing is left to write."""


def build_cache(
    prepared: Prepared,
    layout: CacheLayout,
    path: Path,
    size: int,
    open_writer: Callable[[BinaryIO], Writer],
) -> None:
    """Write the cache file; it gets its name when all bytes are on the disk.

    `layout` has the places of images as the writer counts them; `size`, in bytes, is only logged.
    `storage.atomic` does not serve here: the name of an unfinished file must lead `cache` to the
    lock of its builder, and shards that are fetched beside it are removed with it. Raises DataError
    if a shard differs from the manifest, OSError if the disk is full.
    """
    # Of this process: what another user's killed builder left cannot be written again.
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    pairs = counted(len(prepared), "pair")
    log.info("cache: decoding %s of %s (%s)", pairs, prepared.folder, amounts.size(size))
    began = time.monotonic()
    try:
        with temporary.open("wb") as out:
            writer = open_writer(out)
            with _flushing(out):
                found = _decode_all(prepared, layout, writer, out.name)
            writer.finish()
            os.fsync(out.fileno())
            left_out = undecodable.pairs_of(layout, found.failed)
            undecodable.warn(prepared, left_out)
            warn_of_equal_images(prepared, layout, found.alike)
            undecodable.write_note(path, left_out)
            temporary.replace(path)
            log.info("cache: built in %.1f s: %s", time.monotonic() - began, path)
    finally:
        for leftover in (temporary, *path.parent.glob(f"{temporary.name}.*")):
            leftover.unlink(missing_ok=True)


def member_bytes(tar: BinaryIO, row: Mapping[str, Any], side: str) -> bytes:
    """The encoded rainy or clean image of an index row, from its open tar.

    Raises DataError for a tar that ends before it.
    """
    return read_member(tar, row[f"{side}_offset"], row[f"{side}_length"])


def decode_member(data: bytes, row: Mapping[str, Any], side: str) -> np.ndarray:
    """The rainy or the clean image of an index row: uint8, HWC, RGB.

    Raises DataError if it cannot be decoded or has another size than in the index.
    """
    name = f"{row['shard']}: {row[f'{side}_member']}"
    return decode_sized(data, name, row["height"], row["width"])


def decode_sized(data: bytes, name: str, height: int, width: int) -> np.ndarray:
    """An image that must have a size: uint8, HWC, RGB. Raises DataError that begins with `name`."""
    image = decode_image(data, name)
    if image.shape[:2] != (height, width):
        found = f"{image.shape[1]} x {image.shape[0]} px"
        raise DataError(f"{name}: {found}, the index has {width} x {height}.")
    return image


@dataclass
class _Found:
    """What decoding showed, by the places of images in the layout."""

    failed: dict[int, str] = field(default_factory=dict)
    """Images that cannot be decoded, and why."""
    alike: list[int] = field(default_factory=list)
    """Rainy images that are all but equal to their clean ones."""


def _decode_all(prepared: Prepared, layout: CacheLayout, writer: Writer, prefix: str) -> _Found:
    """Decode shard by shard, each on all cores, while the next shard is fetched and checked.

    With threads, because Pillow decodes outside the GIL; by writing instead of mapping the file,
    because a full disk kills a process that writes to a mapping.
    Remote shards are fetched to files whose names begin with `prefix`.
    """
    entries = prepared.manifest.shards
    found = _Found()
    rows_of = _rows_of_shards(prepared)
    with _progress(len(prepared)) as advance, ThreadPoolExecutor(available_cores() + 1) as pool:
        upcoming = pool.submit(_checked_shard, prepared, entries[0], rows_of[0], prefix)
        try:
            for number, numbers in enumerate(rows_of):
                path, rows = upcoming.result()
                if number + 1 < len(entries):
                    following = entries[number + 1], rows_of[number + 1]
                    upcoming = pool.submit(_checked_shard, prepared, *following, prefix)
                begins = np.stack([layout.rain[numbers], layout.clean[numbers]], axis=1)
                parts = (slice(at, at + _PAIRS_A_TASK) for at in range(0, len(rows), _PAIRS_A_TASK))
                tasks = [
                    pool.submit(_decode, path, rows[part], begins[part], writer, found)
                    for part in parts
                ]
                for task in as_completed(tasks):
                    advance(task.result())
                if is_remote(prepared.folder):
                    path.unlink()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _rows_of_shards(prepared: Prepared) -> list[np.ndarray]:
    """For each shard of the manifest the numbers of its rows in the index, rising."""
    shard = prepared.shard_numbers()
    ends = np.cumsum(np.bincount(shard, minlength=len(prepared.manifest.shards)))
    return np.split(np.argsort(shard, kind="stable"), ends[:-1])


def _checked_shard(
    prepared: Prepared, entry: ShardEntry, numbers: np.ndarray, prefix: str
) -> tuple[Path, pa.Table]:
    """The local path of a shard, once its bytes were checked, and its rows of the index.

    A remote shard is fetched to a file whose name begins with `prefix`.
    """
    path = prepared.folder / entry.name
    if is_remote(path):
        remote, path = path, Path(f"{prefix}.{entry.name}")
        path.write_bytes(remote.read_bytes())
    rows = prepared.rows_at(numbers)
    integrity.require_whole(path, entry, rows)
    return path, rows


def _decode(path: Path, rows: pa.Table, begins: np.ndarray, writer: Writer, found: _Found) -> int:
    """Decode pairs of a shard and write each image once; returns the number of pairs.

    `begins` has the places of the rainy and of the clean image of each pair: (pairs, 2). An image
    that cannot be decoded is noted in `found`.
    """
    with path.open("rb") as tar:
        for row, (rain, clean) in zip(rows.to_pylist(), begins.tolist(), strict=True):
            rainy = _decoded(rain, tar, row, "rain", found)
            is_first = clean > rain  # otherwise an earlier pair has written it
            partner = None
            if is_first or writer.needs_both:
                partner = _decoded(clean, tar, row, "clean", found)
            writer.write((rain, clean), rainy, partner)
            if is_first and look_equal(rainy, partner):
                found.alike.append(rain)
    return len(rows)


def _decoded(
    begin: int, tar: BinaryIO, row: Mapping[str, Any], side: str, found: _Found
) -> np.ndarray | None:
    data = member_bytes(tar, row, side)
    try:
        return decode_member(data, row, side)
    except DataError as error:
        found.failed[begin] = str(error)
        return None


def look_equal(rainy: np.ndarray | None, clean: np.ndarray | None) -> bool:
    """Whether a rainy image is all but equal to its clean one; False if one is missing.

    By every fourth row and column: a sixteenth of the time, and enough to compare two images.
    """
    if rainy is None or clean is None:
        return False
    return almost_equal(rainy[::4, ::4], clean[::4, ::4])


def warn_of_equal_images(prepared: Prepared, layout: CacheLayout, alike: Sequence[int]) -> None:
    """Log the pairs whose rainy images, by their offsets, are all but equal to the clean ones."""
    if alike:
        keys = prepared.column("key")[np.isin(layout.rain, alike)]
        log.warning(
            "cache: %s: the rainy image is all but equal to the clean one in %s, such as %s",
            prepared.folder, counted(len(keys), "pair"), keys[0],
        )  # fmt: skip


def write_at(out: BinaryIO, offset: int, image: np.ndarray) -> None:
    """Write an image to a cache file: uint8, HWC."""
    data = np.ascontiguousarray(image).data.cast("B")
    while data:
        written = os.pwrite(out.fileno(), data, offset)
        offset, data = offset + written, data[written:]


@contextlib.contextmanager
def _flushing(out: BinaryIO) -> Iterator[None]:
    """Flush the file while the cores decode, so that little is left for the last sync.

    Raises OSError at the end of the block if a flush failed.
    """
    done = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        flushed = thread.submit(_flush_until, done, out)
        try:
            yield
        finally:
            done.set()
        flushed.result()


def _flush_until(done: threading.Event, out: BinaryIO) -> None:
    while not done.wait(_FLUSH_EVERY_S):
        os.fsync(out.fileno())


@contextlib.contextmanager
def refusals_explained(folder: Path, size: int) -> Iterator[None]:
    """Turn the OSError of a folder of caches into an error that says what to do."""
    try:
        yield
    except OSError as error:
        reason = _refusal(error, folder, size)
        if reason is None:
            raise
        raise StorageError(
            f"{folder}: {reason}. Choose another folder on a local disk with data.cache_dir or "
            "DERAIN_CACHE_DIR, or decode from the tars with data.cache_gib=0, which is slower."
        ) from error


def _refusal(error: OSError, folder: Path, size: int) -> str | None:
    """Why there is no cache in the folder; None for an error of another kind."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(folder).free / 2**30
        return (
            f"no room for a cache of {size / 2**30:.2f} GiB ({error.strerror}; {free:.2f} GiB are "
            "free)"
        )
    if error.errno == errno.ENODEV:
        return f"the cache cannot be mapped into memory ({error.strerror})"
    where = str(error.filename or folder)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST) and (
        Path(where).absolute().is_relative_to(folder.absolute())
        or folder.absolute().is_relative_to(where)
    ):
        return f"no cache can be read or written there ({where}: {error.strerror})"
    return None


@contextlib.contextmanager
def _progress(pairs: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of pairs just decoded: it draws a bar on a terminal and
    logs a line every 15 s elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("decoding", total=pairs)
            yield lambda count: progress.advance(bar, count)
        return
    done, logged_at = 0, time.monotonic()

    def log_line(count: int) -> None:
        nonlocal done, logged_at
        done += count
        if time.monotonic() - logged_at >= LINE_EVERY_S:
            logged_at = time.monotonic()
            log.info("cache: %d of %d pairs decoded", done, pairs)

    yield log_line
