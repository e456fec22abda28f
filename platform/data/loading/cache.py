"""The cache of a node: decoded pixels of prepared datasets, one memory-mapped file for each.

A cache file contains only pixels: for each sample, in index order, the rainy and then the clean
image as uint8 HWC RGB. A clean image that several samples share is stored once. The file is named
by the manifest's sha256, so it never becomes stale; the index determines the offsets in it. Pairs
that cannot be decoded are listed in a file beside it.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from derain.data.loading import cache_notes, undecodable
from derain.data.loading.cache_builder import (
    SIDES,
    build_cache,
    decode_member,
    member_bytes,
    refusals_explained,
)
from derain.data.loading.cache_layout import CacheLayout, cache_layout
from derain.data.loading.undecodable import Reasons
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError, UsageError
from derain.storage.files import is_remote
from derain.storage.locks import lock_shared, locked, open_to_lock, try_lock

log = logging.getLogger(__name__)

ENVIRONMENT = "DERAIN_CACHE_DIR"
SUFFIX = ".rgb"


class Pixels(Protocol):
    """The pairs of a prepared dataset as pixels, from a cache or from tars."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> np.ndarray:
        """The rainy and the clean image of one sample: uint8, (2, height, width, 3), RGB.

        Those of the next sample in place of one that cannot be decoded.
        """
        ...

    @property
    def left_out(self) -> Reasons:
        """The samples that cannot be decoded, and why; of tars, those that were read so far."""
        ...


def open_pixels(prepared: Prepared, *, folder: str | Path | None, budget_gib: float) -> Pixels:
    """The pixels of a prepared dataset from its cache, which is built if it is missing.

    One process of the node builds it while the others wait. Other caches that are not in use are
    removed, the least recently used first, to keep the budget. If that is not enough, images are
    decoded from the tars, and the log says so. A cache of another user is used like one's own if
    it may be read. Raises DataError if a shard differs from the manifest, StorageError if the disk
    is full or the folder of caches cannot be written to, UsageError if remote tars would have to be
    decoded.
    """
    prepared.require_clean()
    if prepared.whole is not None:
        whole = open_pixels(prepared.whole, folder=folder, budget_gib=budget_gib)
        return PartPixels(whole, prepared)
    layout = cache_layout(prepared)
    size = layout.size
    budget = int(budget_gib * 2**30)
    if size > budget:
        return _from_tars(prepared, f"its cache needs {_gib(size)}, the budget is {_gib(budget)}")
    caches = cache_folder(folder)
    path = caches / f"{prepared.manifest.sha256()}{SUFFIX}"
    with refusals_explained(caches, size):
        found = _finished(prepared, layout, path)
        if found is not None:
            return found
        waiting = partial(_log_waiting, prepared.folder)
        with locked(path.with_suffix(".lock"), on_wait=waiting) as alone:
            found = _finished(prepared, layout, path)  # another process may have built it
            if found is not None:
                return found
            with locked(caches / ".lock"):
                for leftover in caches.glob(f"{path.name}.tmp*") if alone else ():
                    _unlink(leftover)  # of a builder that was killed
                taken = _make_room(caches, budget - size)
            if taken > budget - size:
                return _from_tars(prepared, f"caches in use take {_gib(taken)} in {caches}")
            build_cache(prepared, layout, path)
            cache_notes.note_dataset(path, prepared.folder)
            return MappedPixels(path, layout, *_sizes(prepared), undecodable.read_note(path))


def cache_folder(folder: str | Path | None) -> Path:
    """The folder of caches: `folder`, default: DERAIN_CACHE_DIR, then the user's cache folder."""
    chosen = folder or os.environ.get(ENVIRONMENT)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(base or Path.home() / ".cache") / "derain"
    except RuntimeError as error:
        raise UsageError(
            f"There is no home folder for the cache ({error}). Set {ENVIRONMENT} or data.cache_dir "
            "to a folder on a local disk, or HOME."
        ) from None


class MappedPixels:
    """Pixels of a cache file; all processes of the node share its memory pages.

    A lock keeps the file from being removed as long as this object exists.
    """

    def __init__(
        self,
        path: Path,
        layout: CacheLayout,
        heights: np.ndarray,
        widths: np.ndarray,
        left_out: Reasons,
    ) -> None:
        self._arguments = path, layout, heights, widths, left_out
        read = undecodable.substitutes(len(layout.rain), left_out) if left_out else slice(None)
        self._places = layout.rain[read], layout.clean[read], heights[read], widths[read]
        self._file = path.open("rb")
        lock_shared(self._file)
        # A view of an np.memmap takes a microsecond more than one of its memory.
        self._pixels = np.memmap(self._file, dtype=np.uint8, mode="r").data

    def is_at(self, path: Path) -> bool:
        """Whether the mapped file still has this name; otherwise it was removed meanwhile."""
        return os.path.samestat(os.fstat(self._file.fileno()), path.stat())

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickling maps the file again."""
        return MappedPixels, self._arguments

    def __len__(self) -> int:
        return len(self._places[0])

    @property
    def left_out(self) -> Reasons:
        """The samples that could not be decoded, and why."""
        return self._arguments[-1]

    def __getitem__(self, sample: int) -> np.ndarray:
        rains, cleans, heights, widths = self._places
        rain, height, width = rains.item(sample), heights.item(sample), widths.item(sample)
        # One view of both images, wherever the clean one is, because stacking two views would copy
        # whole images for every crop: 1 us an access (a crop takes 25 us).
        strides = (cleans.item(sample) - rain, 3 * width, 3, 1)
        return np.ndarray((2, height, width, 3), np.uint8, self._pixels, rain, strides)


class TarPixels:
    """Pixels decoded from the tars at every access: slow, but without a cache on disk."""

    def __init__(self, prepared: Prepared) -> None:
        self._folder = prepared.folder
        self._rows = prepared.index.to_pylist()
        self.left_out: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, sample: int) -> np.ndarray:
        """Raises DataError if no sample can be decoded, and for a shard that is damaged."""
        if not 0 <= sample < len(self):
            raise IndexError(sample)
        for step in range(len(self)):
            at = (sample + step) % len(self)
            if at not in self.left_out:
                members = self._read(self._rows[at])
                try:
                    return np.stack([decode_member(*member) for member in members])
                except DataError as error:
                    log.warning("cache: left out a pair of %s: %s", self._folder, error)
                    self.left_out[at] = str(error)
        raise DataError(f"{self._folder}: no pair can be decoded: {self.left_out[sample]}")

    def _read(self, row: Mapping[str, Any]) -> list[tuple[bytes, Mapping[str, Any], str]]:
        with (self._folder / row["shard"]).open("rb") as tar:
            return [(member_bytes(tar, row, side), row, side) for side in SIDES]


class PartPixels:
    """The pixels of a part of a prepared dataset, which has no cache of its own."""

    def __init__(self, whole: Pixels, part: Prepared) -> None:
        assert part.rows is not None
        self._whole, self._rows, self._folder = whole, part.rows.tolist(), part.folder
        self._number = {row: number for number, row in enumerate(self._rows)}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def left_out(self) -> Reasons:
        """The samples of this part that cannot be decoded, and why."""
        return {
            self._number[row]: reason
            for row, reason in self._whole.left_out.items()
            if row in self._number
        }

    def __getitem__(self, sample: int) -> np.ndarray:
        """The next sample of this part, never another part's, replaces one without pixels."""
        pair = self._whole[self._rows[sample]]
        if not self._whole.left_out:
            return pair
        for step in range(len(self)):
            row = self._rows[(sample + step) % len(self)]
            pair = self._whole[row]  # of tars, this decides whether it is left out
            if row not in self._whole.left_out:
                return pair
        raise DataError(f"{self._folder}: no pair of this part can be decoded")


def _finished(prepared: Prepared, layout: CacheLayout, path: Path) -> MappedPixels | None:
    """The pixels of a finished cache, None if there is none.

    That takes no lock file, which another user could not write. Whoever removes a cache locks it
    first: so one that still has its name after it was locked stays.
    """
    if not _is_complete(path, layout.size):
        return None
    try:
        left_out = undecodable.read_note(path)
        pixels = MappedPixels(path, layout, *_sizes(prepared), left_out)
        if not pixels.is_at(path):
            return None
    except FileNotFoundError:
        return None
    log.info("cache: reusing %s for %s", path, prepared.folder)
    undecodable.warn(prepared, left_out)
    with contextlib.suppress(OSError):  # only its owner can mark it as used
        path.touch()
    cache_notes.note_dataset(path, prepared.folder)
    return pixels


def _sizes(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    return prepared.column("height"), prepared.column("width")


def _from_tars(prepared: Prepared, reason: str) -> TarPixels:
    if is_remote(prepared.folder):
        raise UsageError(
            f"cache: {prepared.folder}: {reason}, and its tars are not on this machine. Raise "
            "data.cache_gib, or copy the prepared dataset to this machine and use the copy."
        )
    log.warning("cache: %s: %s; decoding from the tars", prepared.folder, reason)
    return TarPixels(prepared)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _log_waiting(folder: Path) -> None:
    log.info("cache: waiting for another process that is decoding %s", folder)


def _is_complete(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _make_room(folder: Path, allowed: int) -> int:
    """Remove caches that are not in use until the rest takes at most `allowed` bytes, the least
    recently used first; returns the bytes that the rest takes."""
    leftovers = [*folder.glob(f"*{SUFFIX}.tmp*")]
    caches = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    taken = sum(path.stat().st_size for path in (*leftovers, *caches) if path.exists())
    for path in leftovers:
        taken -= remove_if_unused(path, folder / f"{path.name.split('.')[0]}.lock")
    for path in caches:
        if taken <= allowed:
            break
        taken -= remove_if_unused(path, path)
    return taken


def remove_if_unused(path: Path, lock: Path) -> int:
    """Remove a file unless a process that builds or reads it holds the lock, or it is another
    user's; returns the bytes freed."""
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
    if path.suffix != SUFFIX:
        return size
    for note in (undecodable.note_path(path), cache_notes.note_path(path)):
        _unlink(note)
    return size


def _unlink(path: Path) -> bool:
    """Remove a file; False if it is another user's, in a folder where that keeps it."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True
