"""The caches of this node: what they hold, and which of them may go."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from derain.data.loading import filling
from derain.data.loading.cache import (
    SUFFIX,
    TILES,
    is_cache,
    lock_of,
    remove_if_unused,
    without_cache,
)
from derain.data.loading.cache_layout import kept_layout
from derain.data.loading.cache_notes import datasets_of
from derain.data.loading.compressed.tile_pixels import TilePixels, estimated_size, tile_layout
from derain.data.loading.pixels import MappedPixels
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DerainError
from derain.storage.files import is_remote, locate
from derain.storage.locks import open_to_lock, try_lock
from derain.storage.node import cache_folder


@dataclass(frozen=True)
class Cache:
    """A file of pixels, decoded or compressed, or what a killed builder has left of one; or a file
    for a dataset that is decoded from its tars."""

    path: Path
    bytes: int
    datasets: tuple[str, ...]
    """Folders of the prepared dataset; empty if no run has noted one yet."""
    state: str
    """`in use`, `idle`; `gone`: its dataset no longer exists; `unfinished`: left by a kill."""
    used: float
    """Time of the last use, in seconds since 1970."""
    age_s: float
    """Seconds since then."""


def list_caches(folder: Path) -> list[Cache]:
    """The caches in a folder, the last used one first; empty for a folder that does not exist."""
    if not folder.is_dir():
        return []
    return sorted(_all(folder), key=lambda cache: -cache.used)


def has_cache(prepared: Prepared, folder: str | Path | None) -> bool:
    """Whether a dataset, of a part the whole, has a finished cache on this machine."""
    whole = prepared.whole or prepared
    path = _cache_of(whole, folder)
    has_pixels = path.exists() and MappedPixels.is_complete(path, kept_layout(whole, path))
    return has_pixels or _has_tiles(whole, path)


def bytes_to_build(prepared: Prepared, folder: str | Path | None, budget_gib: float) -> int:
    """The size of the cache that a run would build, decoded or compressed; 0 if there is one, or
    if it is larger than the budget, so that images are decoded from the tars."""
    budget = int(budget_gib * 2**30)
    if not budget:
        return 0
    path = _cache_of(prepared, folder)
    layout = kept_layout(prepared, path)
    if layout.size > budget:
        if _has_tiles(prepared, path):
            return 0
        size = estimated_size(prepared, layout, tile_layout(prepared, path.with_suffix(TILES)))
        return size if size <= budget else 0
    has_room = filling.has_begun(path) or MappedPixels.is_complete(path, layout)
    return 0 if has_room else layout.size


def _cache_of(prepared: Prepared, folder: str | Path | None) -> Path:
    return cache_folder(folder) / f"{prepared.manifest.sha256()}{SUFFIX}"


def _has_tiles(prepared: Prepared, cache: Path) -> bool:
    path = cache.with_suffix(TILES)
    return path.exists() and TilePixels.is_complete(path, tile_layout(prepared, path))


def remove(cache: Path) -> int:
    """Remove a cache, or what was left of one, unless a process uses it or it is another user's;
    returns the bytes freed."""
    return remove_if_unused(cache)


def _all(folder: Path) -> Iterator[Cache]:
    beside = without_cache(folder)
    for path in [*beside, *folder.glob(f"*{SUFFIX}*")]:
        if path not in beside and not is_cache(path) and f"{SUFFIX}.tmp" not in path.name:
            continue
        cache = path.with_name(f"{path.name.split('.')[0]}{SUFFIX}")
        try:
            stat = path.stat()
        except OSError:  # another process has removed it, or it is a link to nothing
            continue
        if not S_ISREG(stat.st_mode):  # none of ours; to open a pipe may take forever
            continue
        tiles = cache.with_suffix(TILES)
        can_be_used = path in (cache, tiles, filling.filling_path(cache), *beside)
        named = tiles if path == tiles else cache
        datasets = tuple(datasets_of(named)) if can_be_used else ()
        if _is_in_use(lock_of(path)):
            state = "in use"
        elif not can_be_used:
            state = "unfinished"
        else:
            state = "gone" if datasets and not _any_exists(cache.stem, datasets) else "idle"
        age_s = max(0.0, time.time() - stat.st_mtime)
        yield Cache(path, stat.st_size, datasets, state, stat.st_mtime, age_s)


def _is_in_use(lock: Path) -> bool:
    """Whether a process holds a lock, shared or alone; for the instant of the question this one
    does, for which both readers and builders wait."""
    try:
        with open_to_lock(lock) if lock.suffix == ".lock" else lock.open("rb") as file:
            return not try_lock(file)
    except OSError:
        return False


def _any_exists(digest: str, folders: tuple[str, ...]) -> bool:
    """Whether one of the folders still holds the dataset; of those elsewhere nobody is asked."""
    return any(_holds(folder, digest) for folder in folders)


def _holds(folder: str, digest: str) -> bool:
    try:
        place = locate(folder)
        if is_remote(place):
            return True
        return open_prepared(place).manifest.sha256() == digest
    except PermissionError:
        return True
    except (DerainError, OSError):
        return False
