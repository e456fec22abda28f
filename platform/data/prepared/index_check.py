"""That an index file is the one of its manifest: what is compared when, and what is remembered.

The SHA-256 of the whole file is compared by the first process of this user that opens it on a node.
Beside the caches it leaves a note with a CRC-32 of every block. While the file is the same by
device, inode, size and times, and since the same start of the machine, later processes rely on the
note: an edited or exchanged file has another time of change, which no program sets. A byte that
changes without one, on a failing disk, is found by the process that reads its block, which compares
the CRC-32. `prepare` and `verify` compare all of it every time. A file of a store is fetched and
compared whole at every opening.
"""

import contextlib
import hashlib
import io
import json
import os
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from zlib_ng.zlib_ng import crc32

from derain.errors import DataError, UsageError
from derain.storage import files
from derain.storage.atomic import write_text
from derain.storage.node import boot, cache_folder

BLOCK = 2**16
"""Bytes that have one CRC-32: what is read at least."""
NOTED = 2**24
"""Size in bytes from which a file has a note; a smaller one takes 10 ms."""
_PIECE = 2**22
_SETTLED_NS = 10**9
"""A file that was changed a moment ago may change again within the same tick of its times."""

Version = tuple[int, ...]
"""Device, inode, size and times of a file."""


@dataclass(frozen=True, eq=False)
class Checksums:
    """Those of a version of a file: its SHA-256, and the CRC-32 of each block (uint32)."""

    sha256: str
    blocks: np.ndarray


_KNOWN: dict[Version, Checksums] = {}
"""Of this process: a worker opens a dataset eight times."""


def open_index(path: Path, sha256: str, *, anew: bool = False) -> BinaryIO:
    """An index file to read, which has this SHA-256. With `anew` nothing is relied on.

    Raises DataError if it has another, or cannot be read; the file itself raises it where a block
    is read that has changed since.
    """
    try:
        if files.is_remote(path):
            data = path.read_bytes()
            _require(str(path), sha256, hashlib.sha256(data).hexdigest())
            return io.BytesIO(data)
        file = _CheckedFile(path, sha256, anew)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    return cast(BinaryIO, file)


class _CheckedFile:
    """A local file whose blocks are compared with their checksums when they are read."""

    def __init__(self, path: Path, sha256: str, anew: bool) -> None:
        self._file = files.open_regular(path)
        weakref.finalize(self, self._file.close)  # without Python's warning
        self._name, self._sha256 = str(path), sha256
        self._size = os.fstat(self._file.fileno()).st_size
        known = _checksums(self._file.fileno(), path, anew)
        _require(self._name, sha256, known.sha256)
        self._blocks = known.blocks

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        at = self.tell()
        data = self._read_at(at, size if size >= 0 else self._size - at)
        self.seek(at + len(data))
        return bytes(data)

    def _read_at(self, offset: int, length: int) -> memoryview:
        first, last = offset // BLOCK, -(-min(offset + length, self._size) // BLOCK)
        if first >= last:
            return memoryview(b"")
        data = memoryview(_read_all(self._file.fileno(), first * BLOCK, (last - first) * BLOCK))
        if not np.array_equal(_crc32s(data), self._blocks[first:last]):
            found = _measured(self._file.fileno()).sha256
            _require(self._name, self._sha256, found)
            raise OSError("a block was read with other bytes than the next time")
        begin = offset - first * BLOCK
        return data[begin : begin + length]


def _require(name: str, expected: str, found: str) -> None:
    if found != expected:
        raise DataError(
            f"{name}: damaged: expected sha256 {expected}, found {found}. "
            "`derainctl verify` reports what differs; prepare the dataset again."
        )


def _checksums(file: int, path: Path, anew: bool) -> Checksums:
    """Those that were measured in this process, or by an earlier one on this node, or now."""
    stat = os.fstat(file)
    version = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    if version in _KNOWN and not anew:
        return _KNOWN[version]
    note = _note_path(path) if stat.st_size >= NOTED else None
    known = _read_note(note, version) if note and not anew else None
    if known is None:
        known = _measured(file)
        if note and time.time_ns() - stat.st_ctime_ns > _SETTLED_NS:
            _write_note(note, version, known)
    _KNOWN[version] = known
    return known


def _measured(file: int) -> Checksums:
    digest, blocks, at = hashlib.sha256(), [], 0
    while piece := _read_all(file, at, _PIECE):
        digest.update(piece)
        blocks.append(_crc32s(memoryview(piece)))
        at += len(piece)
    return Checksums(digest.hexdigest(), np.concatenate([np.zeros(0, np.uint32), *blocks]))


def _crc32s(data: memoryview) -> np.ndarray:
    return np.array([crc32(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)], np.uint32)


def _read_all(file: int, offset: int, length: int) -> bytes:
    """`length` bytes, fewer at the end of the file only."""
    data = os.pread(file, length, offset)
    while 0 < len(data) < length and (
        more := os.pread(file, length - len(data), offset + len(data))
    ):
        data += more
    return data


def _note_path(path: Path) -> Path | None:
    """The file beside the caches that remembers the checksums of an index; None without a home."""
    try:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return cache_folder(None) / f"index-{name}-{os.getuid()}.json"
    except UsageError:
        return None


def _read_note(note: Path, version: Version) -> Checksums | None:
    """What a process of this user has noted of this version; None if nothing."""
    try:
        with note.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            tree = json.load(file)
        if (tree["version"], tree["boot"]) != (list(version), boot()):
            return None
        return Checksums(tree["sha256"], np.frombuffer(bytes.fromhex(tree["crc32"]), "<u4"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write_note(note: Path, version: Version, known: Checksums) -> None:
    """Without a note, as in a folder that cannot be written to, every process measures."""
    crc32s = known.blocks.astype("<u4").tobytes().hex()
    tree = {"version": version, "boot": boot(), "sha256": known.sha256, "crc32": crc32s}
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(tree), durable=False)
