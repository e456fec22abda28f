"""Decoded pixels of a prepared dataset: on this node's disk, memory-mapped, made once.

A cache file is nothing but pixels: for each sample, in index order, the rainy and then the clean
image as uint8 HWC RGB; a clean image that several samples share is there once. Its name is the
manifest's sha256, so it never goes stale, and the index says where each image begins.
"""

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from derain.data.loading.cache_builder import SIDES, Places, decode_member, fill, places
from derain.data.prepared.manifest import Prepared
from derain.errors import UsageError
from derain.storage.files import is_remote
from derain.storage.locks import locked, share, try_lock

log = logging.getLogger(__name__)

ENVIRONMENT = "DERAIN_CACHE_DIR"
_SUFFIX = ".rgb"


class Pixels(Protocol):
    """The pairs of a prepared dataset as pixels, however they are stored."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> np.ndarray:
        """Rainy and clean image of one sample: uint8, (2, height, width, 3), RGB."""
        ...


def open_pixels(prepared: Prepared, *, folder: str | Path | None, budget_gib: float) -> Pixels:
    """The cache of a prepared dataset, made first where it is missing.

    One process of the node builds, the others wait for it. Other caches that nobody reads go, the
    least recently used first, until the budget holds. Where it cannot hold, images are decoded
    from the tars, and the log says so. Raises DataError when a shard is not the one that the
    manifest names, DerainError when the disk is full.
    """
    prepared.require_clean()
    where = places(prepared)
    size = where.size
    budget = int(budget_gib * 2**30)
    if size > budget:
        return _from_tars(prepared, f"needs {_gib(size)}, the budget is {_gib(budget)}")
    place = cache_folder(folder)
    path = place / f"{prepared.manifest.sha256()}{_SUFFIX}"
    with locked(path.with_suffix(".lock"), on_wait=partial(_say_waiting, prepared.folder)):
        with locked(place / ".lock"):
            if _is_whole(path, size):
                log.info("cache: reusing %s for %s", path, prepared.folder)
                path.touch()
                return MappedPixels(path, where, *_sizes(prepared))
            for leftover in place.glob(f"{path.name}.tmp*"):  # of a builder that was killed
                leftover.unlink()
            taken = _make_room(place, budget - size)
        if taken > budget - size:
            return _from_tars(prepared, f"finds {_gib(taken)} of caches in use in {place}")
        fill(prepared, where, path)
        return MappedPixels(path, where, *_sizes(prepared))


def cache_folder(folder: str | Path | None) -> Path:
    """Where caches live: `folder`, else DERAIN_CACHE_DIR, else the user's cache folder."""
    chosen = folder or os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "derain"


class MappedPixels:
    """Pixels of a cache file: every process of the node reads the same memory pages.

    The file is locked against removal as long as this object lives.
    """

    def __init__(self, path: Path, where: Places, heights: np.ndarray, widths: np.ndarray) -> None:
        self._arguments = path, where, heights, widths
        self._open = path.open("rb")
        share(self._open)
        # Not np.memmap itself, whose every view costs a microsecond more.
        self._pixels = np.asarray(np.memmap(self._open, dtype=np.uint8, mode="r"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file itself."""
        return MappedPixels, self._arguments

    def __len__(self) -> int:
        return len(self._arguments[1].rain)

    def __getitem__(self, sample: int) -> np.ndarray:
        _, where, heights, widths = self._arguments
        rain, clean = where.rain[sample], where.clean[sample]
        height, width = heights[sample], widths[sample]
        strides = (clean - rain, 3 * width, 3, 1)  # from a rainy image to its clean one: any step
        return np.ndarray((2, height, width, 3), np.uint8, self._pixels, rain, strides)


class TarPixels:
    """Pixels decoded from the tars at every access: slow, needs no disk."""

    def __init__(self, prepared: Prepared) -> None:
        self._folder = prepared.folder
        self._rows = prepared.index.to_pylist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, sample: int) -> np.ndarray:
        row = self._rows[sample]
        with (self._folder / row["shard"]).open("rb") as tar:
            return np.stack([decode_member(tar, row, side) for side in SIDES])


def _sizes(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    return prepared.column("height"), prepared.column("width")


def _from_tars(prepared: Prepared, why: str) -> TarPixels:
    if is_remote(prepared.folder):
        raise UsageError(
            f"cache: {prepared.folder} {why}, and its tars are not on this machine. Raise "
            "data.cache_gib, or copy the prepared dataset here and name the copy."
        )
    log.warning("cache: %s %s: decoding from the tars", prepared.folder, why)
    return TarPixels(prepared)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _say_waiting(folder: Path) -> None:
    log.info("cache: waiting for another process, which decodes %s", folder)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _make_room(folder: Path, allowed: int) -> int:
    """Remove caches that nobody uses until the others take at most `allowed` bytes, the least
    recently used first; returns what is taken."""
    leftovers = [*folder.glob(f"*{_SUFFIX}.tmp*")]
    caches = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    taken = sum(path.stat().st_size for path in (*leftovers, *caches))
    for path in (*leftovers, *caches):
        if path in caches and taken <= allowed:
            break
        lock = path if path in caches else folder / f"{path.name.split('.')[0]}.lock"
        with lock.open("rb" if path in caches else "ab") as file:
            if try_lock(file):  # no builder writes it, nobody reads it
                log.info("cache: removing %s", path)
                taken -= path.stat().st_size
                path.unlink()
    return taken
