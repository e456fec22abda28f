"""Whether a prepared dataset is, byte for byte, what its manifest says, and where it is not.

The index says which member lies where and which sha256 its bytes have. All other bytes of a tar
follow from the members' names and sizes, since `shards` writes them always in the same way. So
reading a shard once tells whether any byte of it is another one; what exactly is wrong is found out
only then, from what the tar itself says.
"""

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from derain.data.prepared.manifest import ShardEntry, rows_sha256
from derain.data.prepared.shards import BLOCK, end, header, json_member
from derain.errors import DataError
from derain.storage import files

SIDES = ("rain", "clean", "json")
_SHOWN = 20
"""Problems of one shard that are listed; a shard without its beginning has thousands."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    shard: str
    member: str
    kind: str
    expected: str
    found: str

    def __str__(self) -> str:
        what = f"{self.kind}: expected {self.expected}, found {self.found}"
        return f"{self.shard}: {self.member}: {what}"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar, as the index describes it."""

    name: str
    offset: int
    length: int
    sha256: str


Read = Callable[[int, int], memoryview]
"""(offset, length) -> bytes of a shard; fewer where it ends before. Valid until the next call."""


def members(rows: pa.Table) -> list[Member]:
    """The members that the index rows of one shard describe, each once, in the order of the tar."""
    found: dict[int, Member] = {}
    for side in SIDES:
        if side == "json":
            names = [json_member(name) for name in rows["rain_member"].to_pylist()]
        else:
            names = rows[f"{side}_member"].to_pylist()
        columns = [rows[f"{side}_{name}"].to_pylist() for name in ("offset", "length", "sha256")]
        for name, offset, length, sha256 in zip(names, *columns, strict=True):
            if offset is not None:
                found[offset] = Member(name, offset, length, sha256)
    return [found[offset] for offset in sorted(found)]


def require_whole(path: Path, entry: ShardEntry, rows: pa.Table) -> None:
    """Raise DataError that names shard, member, expected and found unless the shard is whole."""
    wrong = problems(path, entry, rows)
    if wrong:
        raise DataError(f"{path.parent}: damaged: {wrong[0]}. Prepare the dataset again.")


def problems(path: Path, entry: ShardEntry, rows: pa.Table) -> list[Problem]:
    """What is wrong with a shard whose index rows are right; nothing when it is whole."""
    expected = members(rows)
    if not path.is_file():
        many = f"{expected[0].name} to {expected[-1].name}"
        return [Problem(entry.name, many, "missing shard", f"{entry.bytes} bytes", "no file")]
    size = path.stat().st_size
    with _opened(path) as read:
        first = _first_difference(read, entry, expected)
        if first is None and size == entry.bytes:
            return []
        wrong = list(_members_wrong(read, size, entry, expected))
    if size != entry.bytes:
        last = next((m.name for m in expected if m.offset + m.length > size), expected[-1].name)
        wrong.append(Problem(entry.name, last, "size", f"{entry.bytes} bytes", f"{size} bytes"))
    if not wrong and first:
        wrong.append(first)
    return wrong[:_SHOWN]


def row_problem(path: Path, entry: ShardEntry, rows: pa.Table) -> Problem:
    """Where the index rows of a shard, known to be wrong, differ from what is in its tar."""
    said = _said(rows)
    if path.is_file():
        with _opened(path) as read:
            for name, offset, length in _walk(read, path.stat().st_size):
                there = (offset, length, _digest(read, offset, length))
                if said.get(name) != there:
                    return Problem(entry.name, name, "index", _place(there), _place(said.get(name)))
    first = min(said, default=entry.name)
    expected = f"{entry.pairs} rows of sha256 {entry.rows_sha256}"
    found = f"{len(rows)} rows of sha256 {rows_sha256(rows)}"
    return Problem(entry.name, f"{first} or another", "index", expected, found)


def _said(rows: pa.Table) -> dict[str, tuple[int | None, int | None, str | None]]:
    """Offset, length and sha256 by name, as the index has them; anything may be wrong in it."""
    said = {}
    for row in rows.to_pylist():
        names = {"rain": row["rain_member"], "clean": row["clean_member"]}
        for side, name in {**names, "json": json_member(str(row["rain_member"]))}.items():
            figures = (row[f"{side}_{what}"] for what in ("offset", "length", "sha256"))
            said[str(name)] = tuple(figures)
    return said


def _place(figures: tuple[int | None, int | None, str | None] | None) -> str:
    if figures is None:
        return "no such member"
    offset, length, sha256 = figures
    return f"{length} bytes at {offset} of sha256 {sha256}"


def _first_difference(read: Read, entry: ShardEntry, expected: Sequence[Member]) -> Problem | None:
    """The first place where a shard is not as the index says, in one pass over its bytes."""
    at = 0
    for member in expected:
        block = header(member.name, member.length)
        found = read(at, BLOCK)
        if found != block:
            name = _parsed(bytes(found))
            return Problem(
                entry.name, member.name, "header", f"its header at byte {at}",
                f"that of {name}" if name else "other bytes",
            )  # fmt: skip
        at += BLOCK
        digest = _digest(read, at, member.length)
        if digest != member.sha256:
            return Problem(entry.name, member.name, "content", member.sha256, digest)
        at += member.length
        gap = -member.length % BLOCK
        if gap and read(at, gap) != bytes(gap):
            return Problem(
                entry.name, member.name, "padding", f"zeros from byte {at}", "other bytes"
            )
        at += gap
    if read(at, BLOCK**2) != end(at):
        last = expected[-1].name
        return Problem(entry.name, last, "end", f"{len(end(at))} zeros from byte {at}", "others")
    return None


def _members_wrong(
    read: Read, size: int, entry: ShardEntry, expected: Sequence[Member]
) -> Iterator[Problem]:
    """Members that are missing, too many, or have other bytes, wherever in the tar they now lie."""
    there = dict[str, list[tuple[int, int]]]()
    for name, offset, length in _walk(read, size):
        there.setdefault(name, []).append((offset, length))
    owners = {member.sha256: member.name for member in expected}
    wanted = Counter(member.name for member in expected)
    for member in expected:
        places = there.get(member.name, [])
        if not places:
            yield _missing(read, size, entry, member)
        elif len(places) > wanted[member.name]:
            yield Problem(
                entry.name, member.name, "duplicated member", str(wanted[member.name]),
                f"{len(places)}, at bytes {', '.join(str(offset) for offset, _ in places[:5])}",
            )  # fmt: skip
        else:
            yield from _changed(read, size, entry, member, places[0], owners)
    for name in there.keys() - wanted.keys():
        yield Problem(entry.name, name, "unexpected member", "no such member", "one")


def _missing(read: Read, size: int, entry: ShardEntry, member: Member) -> Problem:
    here = _digest(read, member.offset, member.length) if member.offset < size else ""
    found = "nothing"
    if here == member.sha256:
        found = "its bytes, but not its header"
    elif member.offset + member.length > size:
        found = f"the end of the file at byte {size}"
    return Problem(entry.name, member.name, "missing member", f"{member.length} bytes", found)


def _changed(
    read: Read,
    size: int,
    entry: ShardEntry,
    member: Member,
    place: tuple[int, int],
    owners: Mapping[str, str],
) -> Iterator[Problem]:
    offset, length = place
    if length != member.length:
        found = f"a header that says {length} bytes"
        yield Problem(entry.name, member.name, "content", f"{member.length} bytes", found)
        return
    digest = _digest(read, offset, length)
    if digest == member.sha256:
        return
    if offset + length > size:
        found = f"{max(0, size - offset)} bytes, then the end of the file"
        yield Problem(entry.name, member.name, "cut member", f"{member.length} bytes", found)
    elif digest in owners:
        found = f"the bytes of {owners[digest]}"
        yield Problem(entry.name, member.name, "swapped member", f"sha256 {member.sha256}", found)
    else:
        found = f"sha256 {digest}"
        yield Problem(entry.name, member.name, "content", f"sha256 {member.sha256}", found)


def _walk(read: Read, size: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of what the headers of a tar say; damaged blocks are passed over."""
    at = 0
    while at + BLOCK <= size:
        block = bytes(read(at, BLOCK))
        at += BLOCK
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "replace")
        except tarfile.HeaderError:
            continue
        yield info.name, at, info.size
        if info.isreg() and info.size > 0:  # a hostile header may say less
            at += info.size + -info.size % BLOCK


def _parsed(block: bytes) -> str | None:
    try:
        return tarfile.TarInfo.frombuf(block, "ascii", "replace").name
    except tarfile.HeaderError:
        return None


def _digest(read: Read, offset: int, length: int) -> str:
    digest = hashlib.sha256()
    last = offset + length
    while offset < last:
        piece = read(offset, min(_PIECE, last - offset))
        if not len(piece):
            break
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()


_PIECE = 2**18
"""Bytes read at a time: they stay in the core's own cache until they are hashed."""


class _opened:  # noqa: N801 - a context manager, used like `open`
    """The bytes of a shard by place: of a local file into one buffer, of a remote one at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = memoryview(bytearray(_PIECE))

    def __enter__(self) -> Read:
        if files.is_remote(self._path):
            self._file = None
            whole = memoryview(self._path.read_bytes())
            return lambda offset, length: whole[offset : offset + length]
        self._file = os.open(self._path, os.O_RDONLY)
        return self._read

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def _read(self, offset: int, length: int) -> memoryview:
        assert self._file is not None
        view = self._buffer[: min(length, _PIECE)]
        return view[: os.preadv(self._file, [view], offset)]
