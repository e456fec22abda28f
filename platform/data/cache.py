"""Decoded pixels of a prepared dataset: on this node's disk, memory-mapped, made once.

A cache file is nothing but pixels: for each sample, in index order, the rainy and then the clean
picture as uint8 HWC RGB. Its name is the manifest's sha256, so it never goes stale, and the index
says where each sample begins.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from derain.data import checks, pictures
from derain.data.manifest import Prepared, ShardEntry
from derain.data.shards import read_member

log = logging.getLogger(__name__)

ENVIRONMENT = "DERAIN_CACHE_DIR"
_SUFFIX = ".rgb"


class Pixels(Protocol):
    """The pairs of a prepared dataset as pixels, however they are stored."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> np.ndarray:
        """Rainy and clean picture of one sample: uint8, (2, height, width, 3), RGB."""
        ...


def open_pixels(prepared: Prepared, *, folder: str | Path | None, budget_gib: float) -> Pixels:
    """The cache of a prepared dataset, made first where it is missing.

    One process builds, the others wait for it. A dataset that does not fit the budget is decoded
    from its tars instead, and the log says so; otherwise the least recently used caches go until
    it fits. Raises DataError when a shard is not the one that the manifest names.
    """
    prepared.require_clean()
    needed = int(_offsets(*_sizes(prepared))[-1])
    if needed > budget_gib * 2**30:
        log.warning(
            "cache: %s needs %.2f GiB, the budget is %.2f GiB: decoding from the tars",
            prepared.folder, needed / 2**30, budget_gib,
        )  # fmt: skip
        return TarPixels(prepared)
    place = cache_folder(folder)
    path = place / f"{prepared.manifest.sha256()}{_SUFFIX}"
    with locked(place):
        if _is_whole(path, needed):
            log.info("cache: reusing %s for %s", path, prepared.folder)
        else:
            _make_room(place, int(budget_gib * 2**30) - needed)
            _build(prepared, path)
        path.touch()
    return MappedPixels(path, *_sizes(prepared))


def cache_folder(folder: str | Path | None) -> Path:
    """Where caches live: `folder`, else DERAIN_CACHE_DIR, else the user's cache folder."""
    chosen = folder or os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "derain"


class MappedPixels:
    """Pixels of a cache file: every process of the node reads the same memory pages."""

    def __init__(self, path: Path, heights: np.ndarray, widths: np.ndarray) -> None:
        self._file = path, heights, widths
        # Not np.memmap, whose every slice costs a microsecond more.
        self._pixels = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        self._offsets = _offsets(heights, widths)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file itself."""
        return MappedPixels, self._file

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, sample: int) -> np.ndarray:
        _, heights, widths = self._file
        begin, end = self._offsets[sample], self._offsets[sample + 1]
        return self._pixels[begin:end].reshape(2, heights[sample], widths[sample], 3)


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
            return np.stack([_decode(tar, row, side) for side in ("rain", "clean")])


def _decode(tar: BinaryIO, row: Mapping[str, Any], side: str) -> np.ndarray:
    data = read_member(tar, row[f"{side}_offset"], row[f"{side}_length"])
    return pictures.decode(data, f"{tar.name}: {row[f'{side}_member']}")


def _sizes(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    return prepared.column("height"), prepared.column("width")


def _offsets(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Where each sample begins, and at the end the size of the whole file: int64 bytes."""
    return np.concatenate([[0], np.cumsum(2 * 3 * heights.astype(np.int64) * widths)])


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a cache folder for building and clearing; a killed holder lets go by dying."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _make_room(folder: Path, allowed: int) -> None:
    """Remove the least recently used caches until the others take at most `allowed` bytes."""
    for leftover in folder.glob(f"*{_SUFFIX}.tmp"):  # of a builder that was killed
        leftover.unlink()
    caches = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    used = sum(path.stat().st_size for path in caches)
    for path in caches:
        if used <= allowed:
            return
        log.info("cache: removing %s to stay within the budget", path)
        used -= path.stat().st_size
        path.unlink()


def _build(prepared: Prepared, path: Path) -> None:
    """Decode every shard into `path`, on all cores; the name appears when all bytes are there."""
    temporary = path.with_name(f"{path.name}.tmp")
    offsets = _offsets(*_sizes(prepared))
    log.info(
        "cache: decoding %d pairs of %s (%.2f GiB)",
        len(prepared), prepared.folder, offsets[-1] / 2**30,
    )  # fmt: skip
    with temporary.open("wb") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        # Threads, since Pillow decodes outside the GIL; writes, since a full disk kills a mapping.
        entries = prepared.manifest.shards
        tasks = [pool.submit(_decode_shard, prepared, entry, out, offsets) for entry in entries]
        for task in tasks:
            task.result()
        os.fsync(out.fileno())
    temporary.replace(path)


def _decode_shard(
    prepared: Prepared, entry: ShardEntry, out: BinaryIO, offsets: np.ndarray
) -> None:
    path = prepared.folder / entry.name
    samples = np.flatnonzero(prepared.column("shard") == entry.name)
    rows = prepared.index.take(samples)
    checks.require_whole(path, entry, rows)
    with path.open("rb") as tar:
        for sample, row in zip(samples, rows.to_pylist(), strict=True):
            pair = np.stack([_decode(tar, row, side) for side in ("rain", "clean")])
            _write_at(out, int(offsets[sample]), pair)


def _write_at(out: BinaryIO, offset: int, pair: np.ndarray) -> None:
    data = memoryview(pair.tobytes())
    while data:
        written = os.pwrite(out.fileno(), data, offset)
        offset, data = offset + written, data[written:]
