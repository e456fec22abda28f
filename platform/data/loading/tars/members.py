"""Where the images of each pair are in its shard, and their digests, without memory for each pair.

That is in the index, where a pair costs the row group that it is in: 4 ms for 10,000 rows, and a
random order asks for another one with nearly every pair. So the first pair of a row group has a
record of each of its rows written to a file, and the others are read from there. The CRC-32 of a
record begins with the digest of the index: one that does not fit, because it is not written yet,
damaged or of another index, is made from the index. So nobody needs to know what is in the file,
several processes may write it at once, and it may be removed at any time.
"""

import contextlib
import os
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from zlib_ng.zlib_ng import crc32

from derain.data.loading.cache_builder import decode_member, decode_sized
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from derain.storage.locks import lock_shared

NUMBERS = (
    "shard", "height", "width", "rain_offset", "rain_length", "clean_offset", "clean_length",
)  # fmt: skip
DIGESTS = ("rain_sha256", "clean_sha256")
RECORD = np.dtype(
    [(name, "<i8" if name.endswith(("offset", "length")) else "<i4") for name in NUMBERS]
    + [(name, "V32") for name in DIGESTS]
    + [("crc32", "<u4")]
)
"""Of a pair: what decoding it needs of the index, but for the names in messages; 112 bytes."""
_CHECKED = RECORD.fields["crc32"][1]  # type: ignore[index]
"""Bytes before the checksum."""


class Members:
    """The images of a prepared dataset that is no part, in its shards; for several threads."""

    def __init__(self, prepared: Prepared, path: Path | None = None) -> None:
        """`path` is the file of records; without one, and where it cannot be written, it is a
        temporary file of this process."""
        assert prepared.whole is None
        self._prepared = prepared
        self._seed = crc32(bytes.fromhex(prepared.manifest.index_sha256))
        self._file = _opened(path)
        weakref.finalize(self, self._file.close)  # without Python's warning
        self._lock = threading.Lock()

    def __getitem__(self, pair: int) -> Mapping[str, Any]:
        """What decoding needs of the index's row of a pair, and the pair's number as `pair`."""
        record = self._kept(pair)
        if record is None:
            with self._lock:  # otherwise all threads read the same row group
                record = self._kept(pair)
                if record is None:
                    record = self._made(pair)
        shard, *places = record[[*NUMBERS]].item()
        row = dict(zip(NUMBERS[1:], places, strict=True))
        digests = {name: record[name].tobytes().hex() for name in DIGESTS}
        name = self._prepared.manifest.shards[shard].name
        return {"pair": pair, "shard": name, **row, **digests}

    def named(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The whole row of the index, which has the names of the images."""
        whole: Mapping[str, Any] = self._prepared.rows_at([row["pair"]]).to_pylist()[0]
        return whole

    def decode(self, data: bytes, row: Mapping[str, Any], side: str) -> np.ndarray:
        """`decode_member` for a row without the names, which only messages need."""
        try:
            return decode_sized(data, side, row["height"], row["width"])
        except DataError:
            return decode_member(data, self.named(row), side)

    def _kept(self, pair: int) -> np.ndarray | None:
        """The record of a pair in the file; None if it does not fit."""
        data = os.pread(self._file.fileno(), RECORD.itemsize, pair * RECORD.itemsize)
        if len(data) < RECORD.itemsize:
            return None
        record = np.frombuffer(data, RECORD)[0]
        checksum = crc32(data[:_CHECKED], self._seed)
        # That of a record which was never written is 0.
        return record if checksum == record["crc32"] != 0 else None

    def _made(self, pair: int) -> np.ndarray:
        """The record of a pair from the index; keeps those of its row group."""
        begin, columns = self._prepared.around(pair, *NUMBERS, *DIGESTS)
        records = np.zeros(len(columns[0]), RECORD)
        for name, column in zip((*NUMBERS, *DIGESTS), columns, strict=True):
            records[name] = column
        data, size = records.tobytes(), RECORD.itemsize
        records["crc32"] = [
            crc32(data[at : at + _CHECKED], self._seed) for at in range(0, len(data), size)
        ]
        with contextlib.suppress(OSError):  # a full disk: they are made again for the next pair
            os.pwrite(self._file.fileno(), records.tobytes(), begin * size)
        record: np.ndarray = records[pair - begin]
        return record


def members_path(cache: Path) -> Path:
    """The file of records beside a cache, whether decoded or compressed."""
    return cache.with_name(f"{cache.name.split('.')[0]}.members")


def _opened(path: Path | None) -> IO[bytes]:
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            lock_shared(file)  # so that it stays for other processes
            return file
    return tempfile.TemporaryFile()
