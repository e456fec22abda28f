"""The cache of a node: decoded pixels of prepared datasets, one memory-mapped file for each.

A cache file contains only pixels: for each sample, in index order, the rainy and then the clean
image as uint8 HWC RGB. A clean image that several samples share is stored once. The file is named
by the manifest's sha256, so it never becomes stale; the index determines the offsets in it. Pairs
that cannot be decoded are listed in a file beside it. Of a dataset that does not fit into the
budget so, there is a file of compressed tiles instead, if that fits.
"""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from derain.data.loading import cache_notes, filling, undecodable
from derain.data.loading.cache_builder import (
    PixelWriter,
    Writer,
    build_cache,
    refusals_explained,
)
from derain.data.loading.cache_layout import CacheLayout, kept_layout
from derain.data.loading.compressed.tile_file import TileWriter
from derain.data.loading.compressed.tile_pixels import TilePixels, estimated_size, tile_layout
from derain.data.loading.pixels import (
    MappedPixels,
    PartPixels,
    Pixels,
    finished_cache,
)
from derain.data.loading.tars.members import members_path
from derain.data.loading.tars.tar_pixels import TarPixels
from derain.data.prepared.manifest import Prepared
from derain.errors import UsageError
from derain.storage.files import is_remote
from derain.storage.locks import locked, open_to_lock, try_lock
from derain.storage.node import cache_folder

log = logging.getLogger(__name__)

SUFFIX = ".rgb"
TILES = f".tiles{SUFFIX}"
"""The end of the name of a compressed cache: one that a finished cache has, so all that holds for
those in this folder holds for it."""
BESIDE = (".places", ".members")
"""The ends of the names of the files that processes keep beside a cache, or instead of one while
they decode from tars, and lock while they use them."""


def open_pixels(
    prepared: Prepared, *, folder: str | Path | None, budget_gib: float, at_once: bool = False
) -> Pixels:
    """The pixels of a prepared dataset from its cache, which is built if it is missing.

    One process of the node builds it while the others wait. With `at_once` nobody waits: an image
    is decoded when it is asked for, and the cache fills with those, whoever asks (see `filling`);
    tars that are not on this machine are still decoded before.

    Other caches that are not in use are removed, the least recently used first, to keep the budget.
    A dataset whose pixels exceed the budget has a cache of compressed tiles, which is built before
    anything is read; if that does not fit either, or others in use leave no room, images are
    decoded from the tars, and the log says so. A cache of another user is used like one's own if it
    may be read. Raises DataError if a shard differs from the manifest, with `at_once` when its
    images are asked for; StorageError if the disk is full or the folder of caches cannot be written
    to, UsageError if remote tars would have to be decoded.
    """
    prepared.require_clean()
    if prepared.whole is not None:
        whole = open_pixels(prepared.whole, folder=folder, budget_gib=budget_gib, at_once=at_once)
        return PartPixels(whole, prepared)
    budget = int(budget_gib * 2**30)
    if not budget:
        return _from_tars(prepared, None, "the budget for caches is 0")
    path = cache_folder(folder) / f"{prepared.manifest.sha256()}{SUFFIX}"
    layout = kept_layout(prepared, path)
    if layout.size > budget:
        return _open_tiles(prepared, layout, path.with_suffix(TILES), budget)
    with refusals_explained(path.parent, layout.size):
        found = finished_cache(prepared, layout, path)
        if found is not None:
            return found
        if at_once and not is_remote(prepared.folder):
            return _fill(prepared, layout, path, budget)
        writer = partial(PixelWriter, layout=layout)
        return _build(prepared, layout, path, budget, MappedPixels, layout.size, writer)


def _fill(prepared: Prepared, layout: CacheLayout, path: Path, budget: int) -> Pixels:
    """The pixels of a cache that fills while it is read."""
    with locked(path.parent / ".lock"):
        found = finished_cache(prepared, layout, path)  # another process may have completed it
        if found is not None:
            return found
        if not filling.has_begun(path):
            taken = _make_room(path.parent, budget - layout.size)
            if taken > budget - layout.size:
                return _from_tars(
                    prepared, path, f"caches in use take {_gib(taken)} in {path.parent}"
                )
            filling.begin(path, layout)
            cache_notes.note_dataset(path, prepared.folder)
        pixels = filling.FillingPixels(prepared, layout, path)
    log.info("cache: filling %s with what is asked for of %s", path, prepared.folder)
    if pixels.is_complete:  # its last process was killed before it could say so
        pixels.finish()
        return finished_cache(prepared, layout, path) or pixels
    return pixels


def _build(
    prepared: Prepared,
    layout: CacheLayout,
    path: Path,
    budget: int,
    kind: type[MappedPixels],
    size: int,
    open_writer: Callable[[BinaryIO], Writer],
) -> Pixels:
    """The pixels of a cache after all of it was written, by this process or another one.

    `kind` reads what `open_writer` writes: a file of about `size` bytes.
    """
    waiting = partial(_log_waiting, prepared.folder)
    with locked(lock_of_builder(path), on_wait=waiting) as alone:
        found = finished_cache(prepared, layout, path, kind)  # another process may have built it
        if found is not None:
            return found
        with locked(path.parent / ".lock"):
            for leftover in path.parent.glob(f"{path.name}.tmp*") if alone else ():
                _unlink(leftover)  # of a builder that was killed
            has_begun = filling.has_begun(path)  # never of tiles
            begun = filling.FillingPixels(prepared, layout, path) if has_begun else None
            taken = 0 if begun else _make_room(path.parent, budget - size)
        if begun:
            log.info("cache: decoding what is missing in %s of %s", path, prepared.folder)
            begun.decode_all()
            return finished_cache(prepared, layout, path, kind) or begun
        if taken > budget - size:
            return _from_tars(prepared, path, f"caches in use take {_gib(taken)} in {path.parent}")
        build_cache(prepared, layout, path, size, open_writer)
        cache_notes.note_dataset(path, prepared.folder)
        return kind(path, layout, undecodable.read_note(path))


def _open_tiles(prepared: Prepared, decoded: CacheLayout, path: Path, budget: int) -> Pixels:
    """The pixels of a compressed cache, if it fits into the budget, else of the tars.

    `decoded` is the layout of the decoded pixels, which do not fit.
    """
    layout = tile_layout(prepared, path)
    with refusals_explained(path.parent, 0):
        found = finished_cache(prepared, layout, path, TilePixels)
        if found is not None:
            return found
    size = estimated_size(prepared, decoded, layout)
    too_large = f"its cache needs {_gib(decoded.size)}, about {_gib(size)} compressed"
    if size > budget:
        return _from_tars(prepared, path, f"{too_large}, the budget is {_gib(budget)}")
    log.info("cache: %s: %s", prepared.folder, too_large)
    writer = partial(TileWriter, tiles=layout.size, expected=size)
    with refusals_explained(path.parent, size):
        return _build(prepared, layout, path, budget, TilePixels, size, writer)


def _from_tars(prepared: Prepared, cache: Path | None, reason: str) -> TarPixels:
    if is_remote(prepared.folder):
        raise UsageError(
            f"cache: {prepared.folder}: {reason}, and its tars are not on this machine. Raise "
            "data.cache_gib, or copy the prepared dataset to this machine and use the copy."
        )
    log.warning("cache: %s: %s; decoding from the tars", prepared.folder, reason)
    return TarPixels(prepared, members_path(cache) if cache else None)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _log_waiting(folder: Path) -> None:
    log.info("cache: waiting for another process that is decoding %s", folder)


def _make_room(folder: Path, allowed: int) -> int:
    """Remove caches that are not in use until the rest takes at most `allowed` bytes, the least
    recently used first, and all that caches have left; returns the bytes that the rest takes."""
    stats = {path: stat for path in folder.glob(f"*{SUFFIX}*") if (stat := _stat(path))}
    leftovers = [path for path in stats if f"{SUFFIX}.tmp" in path.name]
    caches = sorted(filter(is_cache, stats), key=lambda path: stats[path].st_mtime)
    taken = sum(stats[path].st_size for path in (*leftovers, *caches))
    for path in leftovers:
        taken -= remove_if_unused(path)
    for path in caches:
        if taken <= allowed:
            break
        taken -= remove_if_unused(path)
    for path in without_cache(folder):
        remove_if_unused(path)
    return taken


def _stat(path: Path) -> os.stat_result | None:
    """None for a file that another process has removed or renamed meanwhile."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def is_cache(path: Path) -> bool:
    """Whether a file of the folder of caches has pixels: of a finished cache or one that fills."""
    return path.suffix == SUFFIX or (filling.FILLING in path.name and path.suffix != ".done")


def without_cache(folder: Path, digest: str = "") -> list[Path]:
    """The files of `BESIDE` of all datasets, or of one, that have no cache (any more)."""
    return [
        path
        for suffix in BESIDE
        for path in folder.glob(f"{digest}*{suffix}")
        if not any(map(is_cache, folder.glob(f"{path.name.split('.')[0]}.*")))
    ]


def lock_of(path: Path) -> Path:
    """The file that is locked by those who use a cache, or build it."""
    return path if is_cache(path) or path.suffix in BESIDE else lock_of_builder(path)


def lock_of_builder(path: Path) -> Path:
    """The file that is locked by the process that builds a cache of that dataset."""
    return path.with_name(f"{path.name.split('.')[0]}.lock")


def remove_if_unused(path: Path) -> int:
    """Remove a cache, or what was left of one, unless a process that builds or reads it holds its
    lock, or it is another user's; with the last one goes what is beside it. Returns the bytes that
    the file had."""
    lock = lock_of(path)
    try:
        with lock.open("rb") if lock == path else open_to_lock(lock) as file:
            if not try_lock(file):
                return 0
            size = path.stat().st_size
            if not _unlink(path):
                return 0
    except (PermissionError, FileNotFoundError):
        return 0
    log.info("cache: removing %s", path)
    if path.suffix in BESIDE:
        return size
    if path.suffix == SUFFIX:
        _unlink(undecodable.note_path(path))
        _unlink(cache_notes.note_path(path))
    else:
        _unlink(filling.done_path(path))
    for beside in without_cache(path.parent, path.name.split(".")[0]):
        remove_if_unused(beside)
    return size


def _unlink(path: Path) -> bool:
    """Remove a file; False if it is another user's, in a folder where that keeps it."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True
