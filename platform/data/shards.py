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

import numpy as np

from derain.data import pictures
from derain.data.manifest import INDEX_SCHEMA, Quarantined, ShardEntry
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
                    sample = read_sample(pair, source)
                except DataError as error:
                    quarantined.append(Quarantined(pair.rain, str(error)))
                else:
                    rows.append({**_append(tar, sample), "shard": path.name})
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
class Sample:
    """A pair as it goes into a tar: its members by side, and what the index says beforehand."""

    key: str
    note: Row
    members: Mapping[str, tuple[str, bytes]]
    """Of `rain`, `clean` (where there is one) and `json`: file ending and bytes."""


def read_sample(pair: Pair, source: Path) -> Sample:
    """Read a pair from its source; bytes pass through, side by side pictures become two PNGs.

    Raises DataError for a picture that cannot be read and for a pair of two sizes.
    """
    sides = _halves(pair, source) if pair.clean_half else _files(pair, source)
    sizes = {side: pixels.shape[1::-1] for side, (_, _, pixels) in sides.items()}
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


_Side = tuple[str, bytes, np.ndarray]
"""File ending, bytes, pixels."""


def _files(pair: Pair, source: Path) -> dict[str, _Side]:
    names = {"rain": pair.rain} | ({"clean": pair.clean} if pair.clean else {})
    found = {}
    for side, name in names.items():
        data = _bytes(source, name)
        found[side] = (pictures.ending(name), data, pictures.decode(data, name))
    return found


def _halves(pair: Pair, source: Path) -> dict[str, _Side]:
    """Left and right half of one picture, without loss."""
    pixels = pictures.decode(_bytes(source, pair.rain), pair.rain)
    width = pixels.shape[1]
    if width % 2:
        raise DataError(f"{pair.rain}: {width} pixels wide, which are not two equal halves.")
    left, right = pixels[:, : width // 2], pixels[:, width // 2 :]
    rain, clean = (right, left) if pair.clean_half == "left" else (left, right)
    return {
        side: (".png", pictures.encode_png(half), half)
        for side, half in (("rain", rain), ("clean", clean))
    }


def _append(tar: tarfile.TarFile, sample: Sample) -> Row:
    """Write the members side by side; the row says where each one's bytes are."""
    row: Row = {**dict.fromkeys(INDEX_SCHEMA.names), **sample.note}
    row["labels"] = json.dumps(sample.note["labels"], sort_keys=True)
    for side, (ending, data) in sample.members.items():
        name = f"{sample.key}{ending}" if side == "json" else f"{sample.key}.{side}{ending}"
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(data), 0, 0o644
        row[f"{side}_offset"] = tar.offset + tarfile.BLOCKSIZE
        row[f"{side}_length"] = info.size
        row[f"{side}_sha256"] = hashlib.sha256(data).hexdigest()
        if side != "json":
            row[f"{side}_member"] = name
        tar.addfile(info, io.BytesIO(data))
    return row


def _bytes(source: Path, name: str) -> bytes:
    try:
        return (source / name).read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}).") from None


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
