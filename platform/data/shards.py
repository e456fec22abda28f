"""Pairs <-> one WebDataset tar, the same bytes every time."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from derain.data import pictures
from derain.data.manifest import Quarantined, ShardEntry
from derain.data.sources import Pair
from derain.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class WrittenShard:
    """What became of a shard's pairs; `entry` is None when every pair was quarantined."""

    entry: ShardEntry | None
    rows: tuple[Row, ...]
    quarantined: tuple[Quarantined, ...]


def write_shard(pairs: Sequence[Pair], source: Path, path: Path) -> WrittenShard:
    """Write the pairs that are whole into one tar at `path`, atomically.

    Picture bytes pass through unchanged. A pair with a picture that cannot be read, or of unequal
    sizes, is left out and reported. Owner, time and order in the tar are fixed.
    """
    rows: list[Row] = []
    quarantined: list[Quarantined] = []
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as raw:
        file = _Hashing(raw)
        with tarfile.open(
            fileobj=cast(BinaryIO, file), mode="w|", format=tarfile.USTAR_FORMAT
        ) as tar:
            for pair in pairs:
                try:
                    sample = _read(pair, source)
                except DataError as error:
                    quarantined.append(Quarantined(_relative(pair.rain, source), str(error)))
                else:
                    rows.append({"shard": path.name, **_append(tar, sample)})
        raw.flush()
        os.fsync(raw.fileno())
    if not rows:
        temporary.unlink()
        return WrittenShard(None, (), tuple(quarantined))
    temporary.replace(path)
    entry = ShardEntry(path.name, file.sha256(), path.stat().st_size, len(rows))
    return WrittenShard(entry, tuple(rows), tuple(quarantined))


def read_member(tar: BinaryIO, offset: int, length: int) -> bytes:
    """The bytes of one member of an open tar, by the offset that the index gives."""
    data = os.pread(tar.fileno(), length, offset)
    if len(data) != length:
        raise DataError(f"{tar.name}: ends at byte {offset + len(data)}, {offset + length} needed.")
    return data


@dataclass(frozen=True)
class _Member:
    name: str
    data: bytes


@dataclass(frozen=True)
class _Sample:
    row: Row
    members: Mapping[str, _Member]


def _read(pair: Pair, source: Path) -> _Sample:
    rain, clean = _bytes(pair.rain, source), _bytes(pair.clean, source)
    shapes = [
        pictures.decode(data, _relative(path, source)).shape[:2]
        for data, path in ((rain, pair.rain), (clean, pair.clean))
    ]
    if shapes[0] != shapes[1]:
        (rain_h, rain_w), (clean_h, clean_w) = shapes
        raise DataError(
            f"{_relative(pair.rain, source)}: {rain_w} x {rain_h}, but "
            f"{_relative(pair.clean, source)}: {clean_w} x {clean_h}; a pair has one size."
        )
    height, width = shapes[0]
    row = {
        "key": pair.key,
        "rain_source": _relative(pair.rain, source),
        "clean_source": _relative(pair.clean, source),
        "width": width,
        "height": height,
        "labels": json.dumps(dict(pair.labels), sort_keys=True),
    }
    note = {**row, "labels": dict(pair.labels)}
    members = {
        "rain": _Member(f"{pair.key}.rain{pair.rain.suffix.lower()}", rain),
        "clean": _Member(f"{pair.key}.clean{pair.clean.suffix.lower()}", clean),
        "json": _Member(f"{pair.key}.json", json.dumps(note, sort_keys=True).encode()),
    }
    return _Sample(row, members)


def _append(tar: tarfile.TarFile, sample: _Sample) -> Row:
    """Write the members side by side; the row says where each one's bytes are."""
    row = dict(sample.row)
    for side, member in sample.members.items():
        info = tarfile.TarInfo(member.name)
        info.size, info.mtime, info.mode = len(member.data), 0, 0o644
        row[f"{side}_offset"] = tar.offset + tarfile.BLOCKSIZE
        row[f"{side}_length"] = info.size
        row[f"{side}_sha256"] = hashlib.sha256(member.data).hexdigest()
        if side != "json":
            row[f"{side}_member"] = member.name
        tar.addfile(info, io.BytesIO(member.data))
    return row


def _bytes(path: Path, source: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{_relative(path, source)}: cannot be read ({error.strerror}).") from None


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()


class _Hashing:
    """A write-only file that knows the sha256 of what went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def sha256(self) -> str:
        return self._digest.hexdigest()
