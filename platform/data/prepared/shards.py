"""Write pairs to a WebDataset tar, always with the same bytes, and read its members."""

import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from derain.data.prepared.index import INDEX_SCHEMA, index_table, rows_sha256
from derain.data.prepared.manifest import Quarantined, ShardEntry
from derain.data.prepared.reading import ImageFile, PairImages, read_pair
from derain.data.sources.pairs import Pair, group_samples
from derain.errors import DataError
from derain.storage.atomic import Writable, new_large_file

Row = dict[str, Any]

BLOCK = tarfile.BLOCKSIZE
_EMPTY = dict.fromkeys(INDEX_SCHEMA.names)


def _empty_header() -> bytes:
    """A header without name and size; its checksum must still be filled in."""
    info = tarfile.TarInfo()
    info.mtime, info.mode = 0, 0o644
    block = info.tobuf(tarfile.USTAR_FORMAT)
    return block[:148] + b" " * 8 + block[156:]


_HEADER = _empty_header()


@dataclass(frozen=True)
class WrittenShard:
    """A shard that was written; `entry` is None if every pair was quarantined."""

    entry: ShardEntry | None
    rows: pa.Table
    quarantined: tuple[Quarantined, ...]


def write_shard(
    pairs: Sequence[Pair], source: Path, path: Path, *, decode: bool = False
) -> WrittenShard:
    """Write pairs into one tar at `path`, atomically.

    The bytes of images pass through unchanged. Neighbouring pairs of one scene are one sample,
    which has their clean image once. A pair with an image that cannot be read, or with images of
    two sizes, is left out and reported. Owner, time and order in the tar are fixed. Images are
    inspected (`decode.inspect`); with `decode` they are decoded too.
    """
    rows: list[Row] = []
    quarantined: list[Quarantined] = []
    try:
        with new_large_file(path) as file:
            tar = _Tar(file)
            for together in group_samples(pairs):
                written, left_out = _write_sample(tar, together, source, decode)
                rows += [{**row, "shard": path.name} for row in written]
                quarantined += left_out
            if not rows:
                raise _EmptyShardError
            tar.end()
    except _EmptyShardError:
        return WrittenShard(None, index_table(()), tuple(quarantined))
    table = index_table(rows)
    entry = ShardEntry(path.name, tar.size, len(rows), rows_sha256(table))
    return WrittenShard(entry, table, tuple(quarantined))


class _EmptyShardError(Exception):
    """Stops writing a shard that would have no pair."""


def read_member(tar: BinaryIO, offset: int, length: int) -> bytes:
    """The bytes of one member of an open tar, by its offset and length in the index."""
    data = os.pread(tar.fileno(), length, offset)
    if len(data) != length:
        raise DataError(
            f"{tar.name}: damaged: ends at byte {offset + len(data)}, expected a member up to byte "
            f"{offset + length}."
        )
    return data


def header(name: str, size: int) -> bytes:
    """The header block of a member: the same bytes as `tarfile` writes, in a fifth of the time."""
    block = bytearray(_HEADER)
    block[: len(name)] = name.encode("ascii")
    block[124:135] = b"%011o" % size
    block[148:155] = b"%06o\0" % sum(block)  # the checksum counts its own field as spaces
    return bytes(block)


def end(size: int) -> bytes:
    """The end of a tar whose members take `size` bytes: two empty blocks, filled up to a record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % tarfile.RECORDSIZE)


def json_member(rain_member: str) -> str:
    """The name of the JSON member in the sample of a rainy image."""
    return f"{rain_member.partition('.')[0]}.json"


def packed_size(lengths: Sequence[int]) -> int:
    """Bytes that members of these lengths take in a tar, headers and padding included."""
    return sum(BLOCK + length + -length % BLOCK for length in lengths)


def _write_sample(
    tar: "_Tar", pairs: Sequence[Pair], source: Path, decode: bool
) -> tuple[list[Row], list[Quarantined]]:
    """Write the usable pairs of one sample; returns their rows and the pairs left out."""
    sample = _SampleWriter(tar, pairs[0])
    left_out = []
    for pair in pairs:
        try:
            sample.add(read_pair(pair, source, decode=decode, clean=sample.clean))
        except DataError as error:
            left_out.append(Quarantined(pair.rain, str(error)))
    return sample.end(), left_out


class _SampleWriter:
    """Writes one sample: the rainy image of each pair, the clean image once, and one JSON member.

    Of the members, only the rainy one differs between the rows of its pairs.
    """

    def __init__(self, tar: "_Tar", first: Pair) -> None:
        self._tar, self._key = tar, first.sample
        self._is_scene = first.scene is not None
        self._metadata: list[Row] = []
        self._rainy: list[Row] = []
        self._shared: Row = {}
        self.clean: ImageFile | None = None
        """The clean image, once the first pair was added."""

    def add(self, images: PairImages) -> None:
        """Append the rainy image of a pair, and its clean image if it is not in the sample yet."""
        name = f"rain-{len(self._rainy) + 1:02d}" if self._is_scene else "rain"
        self._rainy.append(self._append("rain", name, images.rain))
        self._metadata.append(_metadata(images))
        if images.clean and not self.clean:
            self.clean = images.clean
            self._shared = self._append("clean", "clean", images.clean)

    def end(self) -> list[Row]:
        """Append the JSON member; returns the index rows of the pairs."""
        if not self._metadata:
            return []
        text = json.dumps(self._json(), sort_keys=True).encode()
        shared = {**self._shared, **self._tar.append("json", f"{self._key}.json", text)}
        return [
            {**_EMPTY, **note, "labels": json.dumps(note["labels"], sort_keys=True), **rain}
            | shared
            for note, rain in zip(self._metadata, self._rainy, strict=True)
        ]

    def _append(self, side: str, name: str, image: ImageFile) -> Row:
        member = f"{self._key}.{name}{image.ending}"
        return {f"{side}_member": member, **self._tar.append(side, member, image.data)}

    def _json(self) -> Row:
        """The content of the JSON member; for a scene, first what all its pairs have in common."""
        first = self._metadata[0]
        if not self._is_scene:
            return first
        own = ("key", "rain_source", "labels")
        pairs = [
            {"member": rain["rain_member"].partition(".")[2], **{name: note[name] for name in own}}
            for note, rain in zip(self._metadata, self._rainy, strict=True)
        ]
        common = {name: value for name, value in first.items() if name not in own}
        return {"key": self._key, **common, "pairs": pairs}


def _metadata(images: PairImages) -> Row:
    """The part of an index row that does not depend on the tar."""
    width, height = images.rain.size
    return {
        "key": images.pair.key,
        "rain_source": images.pair.rain,
        "clean_source": images.pair.clean,
        "width": width,
        "height": height,
        "labels": dict(images.pair.labels),
    }


class _Tar:
    """Appends members to a tar. Unlike `tarfile`, it does not copy them in pieces of 16 KiB."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self.size = 0

    def append(self, side: str, name: str, data: bytes) -> Row:
        """Write a member; returns its offset, length and sha256 as columns of the index."""
        begin = self.size + BLOCK
        for part in (header(name, len(data)), data, bytes(-len(data) % BLOCK)):
            self._write(part)
        return {
            f"{side}_offset": begin,
            f"{side}_length": len(data),
            f"{side}_sha256": hashlib.sha256(data).hexdigest(),
        }

    def end(self) -> None:
        """Write the end of the tar."""
        self._write(end(self.size))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
