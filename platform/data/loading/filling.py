"""A cache that fills in the order of use: a batch waits for its own samples only.

Until a cache is complete its pixels are in `<digest>.rgb.filling-<boot>-<user>`, which has the
layout of the finished file, and a byte per image in `<that>.done` says which of them are there.
Every process of the node that needs an image which is not there decodes it from its shard, checks
its sha256, writes it and sets its byte: two that do so at once write the same. So nobody waits for
anybody, and a fill that was killed goes on where it was. When the last image is there, the file is
flushed to the disk and gets the name of a finished cache. After a restart of the machine nobody
knows which bytes have reached the disk, so the name has the identity of the boot.
"""

import hashlib
import logging
import mmap
import os
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from derain.data.loading import undecodable
from derain.data.loading.cache_builder import (
    SIDES,
    look_equal,
    member_bytes,
    warn_of_equal_images,
    write_at,
)
from derain.data.loading.cache_layout import CacheLayout, kept_layout
from derain.data.loading.pixels import MappedPixels, finished_cache
from derain.data.loading.tars.members import Members, members_path
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DataError
from derain.storage.atomic import new_file
from derain.storage.cores import available_cores
from derain.storage.files import open_regular
from derain.storage.locks import locked
from derain.storage.node import boot

log = logging.getLogger(__name__)

FILLING = ".filling-"
MISSING, WRITTEN, FAILED = range(3)
"""The byte of an image; one that cannot be decoded is FAILED."""


def filling_path(cache: Path) -> Path:
    """The file that becomes a cache, of this user and since this start of the machine."""
    return cache.with_name(f"{cache.name}{FILLING}{boot()}-{os.getuid()}")


def done_path(filling: Path) -> Path:
    """The file with a byte for each image: all rainy ones, then the clean ones by pair."""
    return filling.with_name(f"{filling.name}.done")


def has_begun(cache: Path) -> bool:
    """Whether there is a cache of this user that can be filled further."""
    filling = filling_path(cache)
    return filling.exists() and done_path(filling).exists()


def begin(cache: Path, layout: CacheLayout) -> None:
    """Reserve the disk for a cache in which no image is. The folder of caches must be locked.

    Raises OSError if the disk is full.
    """
    filling = filling_path(cache)
    done_path(filling).unlink(missing_ok=True)  # until it is back, the other file means nothing
    try:
        with filling.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, layout.size)
            else:
                file.truncate(layout.size)
    except OSError:
        filling.unlink(missing_ok=True)
        raise
    done = np.full((2, len(layout.rain)), MISSING, np.uint8)
    done[1, layout.clean < layout.rain] = WRITTEN  # those of an earlier pair
    with new_file(done_path(filling), durable=False) as file:
        file.write(done.tobytes())


class FillingPixels:
    """Pixels of a cache that is being filled: an image that is not there yet is decoded now.

    Looks like `MappedPixels`, and stays valid after the cache is complete. `left_out` has the pairs
    that this process has found so far. Reading raises DataError for a damaged shard, and if no pair
    can be decoded.
    """

    def __init__(self, prepared: Prepared, layout: CacheLayout, cache: Path) -> None:
        self._prepared, self._layout, self._cache = prepared, layout, cache
        self._path = filling_path(cache)
        self._mapped = MappedPixels(self._path, layout, {})
        self._out = self._path.open("r+b")
        weakref.finalize(self, self._out.close)  # without Python's warning
        with done_path(self._path).open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)
        self._done = np.frombuffer(self._bytes, np.uint8).reshape(2, -1)
        self._members = Members(prepared, members_path(cache))
        self._first_missing = 0
        self._under_way: dict[int, Future[None]] = {}
        self._alike: list[int] = []
        self.left_out: dict[int, str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files itself, or the finished cache if they are gone."""
        return _reopened, (self._prepared.folder, self._cache)

    def __len__(self) -> int:
        return len(self._mapped)

    def __getitem__(self, sample: int) -> np.ndarray:
        if not 0 <= sample < len(self):
            raise IndexError(sample)
        for step in range(len(self)):
            at = (sample + step) % len(self)
            if at not in self.left_out and not self._is_there(at):
                self._decode(at)
            if at not in self.left_out:
                return self._mapped[at]
        reason = self.left_out[sample]
        raise DataError(f"{self._prepared.folder}: no pair can be decoded: {reason}")

    @property
    def is_complete(self) -> bool:
        """Whether every image is there, or known not to be decodable."""
        found = self._bytes.find(bytes([MISSING]), self._first_missing)
        self._first_missing = len(self._bytes) if found < 0 else found
        return found < 0

    def decode(self, samples: Sequence[int]) -> list[Future[None]]:
        """Begin to decode those samples that are not there; returns what is under way of them."""
        if self._first_missing == len(self._bytes):
            return []
        tasks = []
        for sample in samples:
            task = self._under_way.get(sample)
            if task is None and sample not in self.left_out and not self._is_there(sample):
                task = self._under_way[sample] = self._threads.submit(self._decode, sample)
            if task is not None:
                tasks.append(task)
        return tasks

    def decode_all(self) -> None:
        """Decode all that is not there, on all cores, and finish the cache.

        Raises DataError for a damaged shard.
        """
        for first in range(0, len(self), _TOGETHER):
            for task in self.decode(range(first, min(first + _TOGETHER, len(self)))):
                task.result()
        self.finish()

    def finish(self) -> None:
        """Give a complete cache its name, once all of its bytes are on the disk.

        Raises DataError if no pair can be decoded.
        """
        if not self._path.exists():
            return
        os.fsync(self._out.fileno())
        for sample in np.flatnonzero(self._unreadable()).tolist():
            self._write(sample)  # another process may have found it: this says why
        left_out = dict(sorted(self.left_out.items()))
        undecodable.warn(self._prepared, left_out)
        warn_of_equal_images(self._prepared, self._layout, self._alike)
        with locked(self._cache.parent / ".lock"):
            if self._path.exists():
                undecodable.write_note(self._cache, left_out)
                self._path.replace(self._cache)
                done_path(self._path).unlink(missing_ok=True)
                members_path(self._cache).unlink(missing_ok=True)
                log.info("cache: complete: %s", self._cache)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(available_cores(), "decode")

    def _owner(self, sample: int) -> int:
        """The pair with which the clean image of a sample is stored."""
        clean = self._layout.clean
        while clean[sample] < self._layout.rain[sample]:
            sample -= 1
        return sample

    def _is_there(self, sample: int) -> bool:
        done = self._done
        return done[0, sample] == WRITTEN and done[1, self._owner(sample)] == WRITTEN

    def _unreadable(self) -> np.ndarray:
        if self._bytes.find(bytes([FAILED])) < 0:  # the places of all pairs take 32 bytes a pair
            return np.zeros(0, bool)
        owners = np.searchsorted(self._layout.rain, self._layout.clean, side="right") - 1
        return (self._done[0] == FAILED) | (self._done[1, owners] == FAILED)

    def _decode(self, sample: int) -> None:
        """Write what is missing of a pair; after the last one the cache is finished, for which
        nobody waits."""
        try:
            self._write(sample)
        finally:
            self._under_way.pop(sample, None)
        if self._first_missing < len(self._bytes) and self.is_complete:
            self._threads.submit(self.finish).add_done_callback(self._log_failure)

    def _log_failure(self, finishing: Future[None]) -> None:
        error = finishing.exception()
        if error is not None:
            log.warning("cache: %s stays unfinished: %s", self._cache, error)

    def _write(self, sample: int) -> None:
        """Write what is missing of a pair; one that cannot be decoded is left out."""
        row = self._members[sample]
        owners = sample, self._owner(sample)
        offsets = int(self._layout.rain[sample]), int(self._layout.clean[sample])
        images = []
        with _opened(self._prepared.folder, row["shard"]) as tar:
            for kind, side in enumerate(SIDES):
                if self._done[kind, owners[kind]] == WRITTEN:
                    continue
                data = self._member(tar, row, side)
                try:
                    image = self._members.decode(data, row, side)
                except DataError as error:
                    self._done[kind, owners[kind]] = FAILED
                    self.left_out.setdefault(sample, str(error))
                    continue
                write_at(self._out, offsets[kind], image)
                self._done[kind, owners[kind]] = WRITTEN
                images.append(image)
        if len(images) == len(SIDES) and look_equal(*images):
            self._alike.append(offsets[0])

    def _member(self, tar: BinaryIO, row: Mapping[str, Any], side: str) -> bytes:
        """The bytes of an image. Raises DataError unless they are those of the index."""
        data = member_bytes(tar, row, side)
        found, expected = hashlib.sha256(data).hexdigest(), row[f"{side}_sha256"]
        if found != expected:
            name = self._members.named(row)[f"{side}_member"]
            raise DataError(
                f"{self._prepared.folder}: damaged: {row['shard']}: {name}: "
                f"content: expected sha256 {expected}, found sha256 {found}. Prepare the dataset "
                "again."
            )
        return data


def _opened(folder: Path, shard: str) -> BinaryIO:
    try:
        return cast(BinaryIO, open_regular(folder / shard))
    except FileNotFoundError:
        raise DataError(
            f"{folder}: damaged: {shard}: missing shard. Prepare the dataset again."
        ) from None


def _reopened(folder: Path, cache: Path) -> FillingPixels | MappedPixels:
    prepared = open_prepared(folder)
    layout = kept_layout(prepared, cache)
    try:
        return FillingPixels(prepared, layout, cache)
    except FileNotFoundError:  # it is complete by now
        found = finished_cache(prepared, layout, cache)
        if found is None:
            raise
        return found


_TOGETHER = 256
"""Samples that `decode_all` has under way at a time."""
