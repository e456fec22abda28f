"""Pairs <-> one WebDataset tar, the same bytes every time."""

import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from derain.data.prepared.manifest import (
    INDEX_SCHEMA,
    Quarantined,
    ShardEntry,
    rows_sha256,
    table_of,
)
from derain.data.prepared.reading import ImageFile, Read, read_pair
from derain.data.sources.pairs import Pair, samples
from derain.errors import DataError
from derain.storage.atomic import Writable, new_large_file

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

    ImageFile bytes pass through unchanged. Neighbours of one scene are one sample, which has their
    clean image once. A pair with an image that cannot be read, or of unequal
    sizes, is left out and reported. Owner, time and order in the tar are fixed. Images are
    inspected (`headers.inspect`), with `decode` they are decoded.
    """
    rows: list[Row] = []
    quarantined: list[Quarantined] = []
    try:
        with new_large_file(path) as file:
            tar = _Tar(file)
            for together in samples(pairs):
                written, left_out = _write_sample(tar, together, source, decode)
                rows += [{**row, "shard": path.name} for row in written]
                quarantined += left_out
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


def json_member(rain_member: str) -> str:
    """The name of the json of the sample that a rainy image lies in."""
    return f"{rain_member.partition('.')[0]}.json"


def packed_size(lengths: Sequence[int]) -> int:
    """Bytes that members of these lengths take in a tar."""
    return sum(BLOCK + length + -length % BLOCK for length in lengths)


def _write_sample(
    tar: "_Tar", pairs: Sequence[Pair], source: Path, decode: bool
) -> tuple[list[Row], list[Quarantined]]:
    """Write the pairs of one sample that are whole; their rows, and what was left out."""
    sample = _Sample(tar, pairs[0])
    left_out = []
    for pair in pairs:
        try:
            sample.add(read_pair(pair, source, decode=decode, clean=sample.clean))
        except DataError as error:
            left_out.append(Quarantined(pair.rain, str(error)))
    return sample.end(), left_out


class _Sample:
    """One sample while it is written: a rainy image a pair, the clean one once, and one json.

    The rows of its pairs differ in the rainy member only.
    """

    def __init__(self, tar: "_Tar", first: Pair) -> None:
        self._tar, self._key = tar, first.sample
        self._is_scene = first.scene is not None
        self._notes: list[Row] = []
        self._rainy: list[Row] = []
        self._shared: Row = {}
        self.clean: ImageFile | None = None
        """As it was read with the first pair."""

    def add(self, read: Read) -> None:
        """Append the images of a pair that are not there yet."""
        name = f"rain-{len(self._rainy) + 1:02d}" if self._is_scene else "rain"
        self._rainy.append(self._image("rain", name, read.rain))
        self._notes.append(_note(read))
        if read.clean and not self.clean:
            self.clean = read.clean
            self._shared = self._image("clean", "clean", read.clean)

    def end(self) -> list[Row]:
        """Append the json; the rows say where the members of each pair are."""
        if not self._notes:
            return []
        text = json.dumps(self._about(), sort_keys=True).encode()
        shared = {**self._shared, **self._tar.append("json", f"{self._key}.json", text)}
        return [
            {**_EMPTY, **note, "labels": json.dumps(note["labels"], sort_keys=True), **rain}
            | shared
            for note, rain in zip(self._notes, self._rainy, strict=True)
        ]

    def _image(self, side: str, name: str, image: ImageFile) -> Row:
        member = f"{self._key}.{name}{image.ending}"
        return {f"{side}_member": member, **self._tar.append(side, member, image.data)}

    def _about(self) -> Row:
        """What the json says: of a scene what its pairs have in common, then each of them."""
        first = self._notes[0]
        if not self._is_scene:
            return first
        own = ("key", "rain_source", "labels")
        pairs = [
            {"member": rain["rain_member"].partition(".")[2], **{name: note[name] for name in own}}
            for note, rain in zip(self._notes, self._rainy, strict=True)
        ]
        common = {name: value for name, value in first.items() if name not in own}
        return {"key": self._key, **common, "pairs": pairs}


def _note(read: Read) -> Row:
    """What is known of a pair before it is written."""
    width, height = read.rain.size
    return {
        "key": read.pair.key,
        "rain_source": read.pair.rain,
        "clean_source": read.pair.clean,
        "width": width,
        "height": height,
        "labels": dict(read.pair.labels),
    }


class _Tar:
    """Writes members one after the other; `tarfile` copies each in pieces of 16 KiB."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self.size = 0

    def append(self, side: str, name: str, data: bytes) -> Row:
        """Write a member; returns what the index says of its bytes."""
        begin = self.size + BLOCK
        for part in (header(name, len(data)), data, bytes(-len(data) % BLOCK)):
            self._write(part)
        return {
            f"{side}_offset": begin,
            f"{side}_length": len(data),
            f"{side}_sha256": hashlib.sha256(data).hexdigest(),
        }

    def end(self) -> None:
        """Write what closes a tar."""
        self._write(end(self.size))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
