"""Pairs <-> one WebDataset tar, the same bytes every time."""

import hashlib
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from derain.data import files, headers, pictures
from derain.data.manifest import (
    INDEX_SCHEMA,
    Quarantined,
    ShardEntry,
    rows_sha256,
    table_of,
)
from derain.data.sources import Pair
from derain.errors import DataError

Row = dict[str, Any]

BLOCK = tarfile.BLOCKSIZE
_EMPTY = dict.fromkeys(INDEX_SCHEMA.names)


def _empty_header() -> bytes:
    """A header of a file without name and size, its checksum still to be filled in."""
    info = tarfile.TarInfo()
    info.mtime, info.mode = 0, 0o644
    block = info.tobuf(tarfile.USTAR_FORMAT)
    return block[:148] + b" " * 8 + block[156:]


_HEADER = _empty_header()


@dataclass(frozen=True)
class WrittenShard:
    """What became of a shard's pairs; `entry` is None when every pair was quarantined."""

    entry: ShardEntry | None
    rows: pa.Table
    quarantined: tuple[Quarantined, ...]


def write_shard(
    pairs: Sequence[Pair], source: Path, path: Path, *, decode: bool = False
) -> WrittenShard:
    """Write the pairs that are whole into one tar at `path`, atomically.

    Picture bytes pass through unchanged. A pair with a picture that cannot be read, or of unequal
    sizes, is left out and reported. Owner, time and order in the tar are fixed. Pictures are
    inspected (`headers.inspect`), with `decode` they are decoded.
    """
    rows: list[Row] = []
    quarantined: list[Quarantined] = []
    try:
        with files.new_large_file(path) as file:
            tar = _Tar(file)
            for pair in pairs:
                try:
                    sample = read_sample(pair, source, decode=decode)
                except DataError as error:
                    quarantined.append(Quarantined(pair.rain, str(error)))
                else:
                    rows.append({**_append(tar, sample), "shard": path.name})
            if not rows:
                raise _NothingWholeError
            tar.end()
    except _NothingWholeError:
        return WrittenShard(None, table_of(()), tuple(quarantined))
    table = table_of(rows)
    entry = ShardEntry(path.name, tar.size, len(rows), rows_sha256(table))
    return WrittenShard(entry, table, tuple(quarantined))


class _NothingWholeError(Exception):
    """Ends the writing of a shard that would be empty."""


def read_member(tar: BinaryIO, offset: int, length: int) -> bytes:
    """The bytes of one member of an open tar, by the offset that the index gives."""
    data = os.pread(tar.fileno(), length, offset)
    if len(data) != length:
        raise DataError(f"{tar.name}: ends at byte {offset + len(data)}, {offset + length} needed.")
    return data


def header(name: str, size: int) -> bytes:
    """The block before a member: `tarfile`'s own, in a fifth of its time."""
    block = bytearray(_HEADER)
    block[: len(name)] = name.encode("ascii")
    block[124:135] = b"%011o" % size
    block[148:155] = b"%06o\0" % sum(block)  # the checksum counts its own field as spaces
    return bytes(block)


def end(size: int) -> bytes:
    """What closes a tar whose members take `size` bytes: two empty blocks, then a whole record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % tarfile.RECORDSIZE)


def packed_size(lengths: Sequence[int]) -> int:
    """Bytes that members of these lengths take in a tar."""
    return sum(BLOCK + length + -length % BLOCK for length in lengths)


@dataclass(frozen=True)
class Sample:
    """A pair as it goes into a tar: its members by side, and what the index says beforehand."""

    key: str
    note: Row
    members: Mapping[str, tuple[str, bytes]]
    """Of `rain`, `clean` (where there is one) and `json`: file ending and bytes."""


def read_sample(pair: Pair, source: Path, *, decode: bool = False) -> Sample:
    """Read a pair from its source; bytes pass through, side by side pictures become two PNGs.

    Raises DataError for a picture that cannot be read and for a pair of two sizes.
    """
    sides = _halves(pair, source) if pair.clean_half else _files(pair, source, decode)
    sizes = {side: size for side, (_, _, size) in sides.items()}
    width, height = sizes["rain"]
    if sizes.get("clean", (width, height)) != (width, height):
        raise DataError(
            f"{pair.rain}: {width} x {height}, but {pair.clean}: "
            f"{sizes['clean'][0]} x {sizes['clean'][1]}; a pair has one size."
        )
    note = {
        "key": pair.key,
        "rain_source": pair.rain,
        "clean_source": pair.clean,
        "width": width,
        "height": height,
        "labels": dict(pair.labels),
    }
    members = {side: (ending, data) for side, (ending, data, _) in sides.items()}
    members["json"] = (".json", json.dumps(note, sort_keys=True).encode())
    return Sample(pair.key, note, members)


_Side = tuple[str, bytes, tuple[int, int]]
"""File ending, bytes, width and height."""


def _files(pair: Pair, source: Path, decode: bool) -> dict[str, _Side]:
    names = {"rain": pair.rain} | ({"clean": pair.clean} if pair.clean else {})
    found = {}
    for side, name in names.items():
        data = _bytes(source, name)
        size = headers.inspect(data, name)
        if decode:
            pictures.decode(data, name)
        found[side] = (pictures.ending(name), data, size)
    return found


def _halves(pair: Pair, source: Path) -> dict[str, _Side]:
    """Left and right half of one picture, without loss."""
    pixels = pictures.decode(_bytes(source, pair.rain), pair.rain)
    height, width = pixels.shape[:2]
    if width % 2:
        raise DataError(f"{pair.rain}: {width} pixels wide, which are not two equal halves.")
    left, right = pixels[:, : width // 2], pixels[:, width // 2 :]
    rain, clean = (right, left) if pair.clean_half == "left" else (left, right)
    return {
        side: (".png", pictures.encode_png(half), (width // 2, height))
        for side, half in (("rain", rain), ("clean", clean))
    }


def _append(tar: "_Tar", sample: Sample) -> Row:
    """Write the members side by side; the row says where each one's bytes are."""
    row: Row = {**_EMPTY, **sample.note}
    row["labels"] = json.dumps(sample.note["labels"], sort_keys=True)
    for side, (ending, data) in sample.members.items():
        name = f"{sample.key}{ending}" if side == "json" else f"{sample.key}.{side}{ending}"
        row[f"{side}_offset"] = tar.append(name, data)
        row[f"{side}_length"] = len(data)
        row[f"{side}_sha256"] = hashlib.sha256(data).hexdigest()
        if side != "json":
            row[f"{side}_member"] = name
    return row


def _bytes(source: Path, name: str) -> bytes:
    try:
        return files.read_bytes(source, name)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from None


class _Tar:
    """Writes members one after the other; `tarfile` copies each in pieces of 16 KiB."""

    def __init__(self, file: files.Writable) -> None:
        self._file = file
        self.size = 0

    def append(self, name: str, data: bytes) -> int:
        """Write a member; returns where its bytes begin."""
        begin = self.size + BLOCK
        for part in (header(name, len(data)), data, bytes(-len(data) % BLOCK)):
            self._write(part)
        return begin

    def end(self) -> None:
        """Write what closes a tar."""
        self._write(end(self.size))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
