"""Check every byte of a shard against its index rows, and report where they differ.

The index has the offset and the sha256 of each member. All other bytes of a tar follow from the
members' names and sizes, because `shards` always writes them in the same way. So one pass over a
shard shows whether any byte of it differs. Only then are the headers of the tar itself searched
for what exactly is wrong.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from derain.data.prepared.index import rows_sha256
from derain.data.prepared.manifest import ShardEntry
from derain.data.prepared.samples import json_member
from derain.data.prepared.shard_reader import ShardReader, parse_header
from derain.data.prepared.shards import BLOCK, end, header
from derain.errors import DataError

SIDES = ("rain", "clean", "json")
_MAX_PROBLEMS = 20
"""Problems reported per shard: a shard without its beginning has thousands."""


@dataclass(frozen=True)
class Problem:
    """One difference between a prepared dataset and its manifest."""

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


MemberBytes = tuple[int | None, int | None, str | None]
"""Offset, length and sha256 of a member; None where a damaged index has no value."""


def indexed_members(rows: pa.Table) -> list[Member]:
    """The members that the index rows of one shard describe, each once, in the order of the tar."""
    by_offset: dict[int, Member] = {}
    for side in SIDES:
        if side == "json":
            names = [json_member(name) for name in rows["rain_member"].to_pylist()]
        else:
            names = rows[f"{side}_member"].to_pylist()
        columns = [rows[f"{side}_{name}"].to_pylist() for name in ("offset", "length", "sha256")]
        for name, offset, length, sha256 in zip(names, *columns, strict=True):
            if offset is not None:
                by_offset[offset] = Member(name, offset, length, sha256)
    return [by_offset[offset] for offset in sorted(by_offset)]


def require_whole(path: Path, entry: ShardEntry, rows: pa.Table) -> None:
    """Raise DataError that names shard, member, expected and found unless the shard is whole."""
    problems = find_problems(path, entry, rows)
    if problems:
        raise DataError(f"{path.parent}: damaged: {problems[0]}. Prepare the dataset again.")


def find_problems(path: Path, entry: ShardEntry, rows: pa.Table) -> list[Problem]:
    """What is wrong with a shard, given correct index rows; empty if it is whole."""
    expected = indexed_members(rows)
    if not path.is_file():
        names = f"{expected[0].name} to {expected[-1].name}"
        return [Problem(entry.name, names, "missing shard", f"{entry.bytes} bytes", "no file")]
    size = path.stat().st_size
    with ShardReader(path) as reader:
        first = _first_difference(reader, entry, expected)
        if first is None and size == entry.bytes:
            return []
        problems = list(_member_problems(reader, size, entry, expected))
    if size != entry.bytes:
        last = next((m.name for m in expected if m.offset + m.length > size), expected[-1].name)
        problems.append(Problem(entry.name, last, "size", f"{entry.bytes} bytes", f"{size} bytes"))
    if not problems and first:
        problems.append(first)
    return problems[:_MAX_PROBLEMS]


def find_row_problem(path: Path, entry: ShardEntry, rows: pa.Table) -> Problem:
    """The first difference between the wrong index rows of a shard and the members of its tar."""
    indexed = _indexed_bytes(rows)
    if path.is_file():
        with ShardReader(path) as reader:
            for name, offset, length in reader.headers(path.stat().st_size):
                actual = (offset, length, reader.sha256(offset, length))
                if indexed.get(name) != actual:
                    expected, found = _describe(actual), _describe(indexed.get(name))
                    return Problem(entry.name, name, "index", expected, found)
    first = min(indexed, default=entry.name)
    expected = f"{entry.pairs} rows of sha256 {entry.rows_sha256}"
    found = f"{len(rows)} rows of sha256 {rows_sha256(rows)}"
    return Problem(entry.name, f"{first} or another", "index", expected, found)


def _indexed_bytes(rows: pa.Table) -> dict[str, MemberBytes]:
    """The bytes of each member, by name, according to index rows in which anything may be wrong."""
    indexed = {}
    for row in rows.to_pylist():
        names = {"rain": row["rain_member"], "clean": row["clean_member"]}
        for side, name in {**names, "json": json_member(str(row["rain_member"]))}.items():
            offset, length, sha256 = (
                row[f"{side}_{what}"] for what in ("offset", "length", "sha256")
            )
            indexed[str(name)] = (offset, length, sha256)
    return indexed


def _describe(member: MemberBytes | None) -> str:
    if member is None:
        return "no such member"
    offset, length, sha256 = member
    return f"{length} bytes at {offset} of sha256 {sha256}"


def _first_difference(
    reader: ShardReader, entry: ShardEntry, expected: Sequence[Member]
) -> Problem | None:
    """The first difference from the index, in one pass over the bytes of a shard."""
    at = 0
    for member in expected:
        block = reader.read(at, BLOCK)
        if block != header(member.name, member.length):
            info = parse_header(bytes(block))
            found = f"that of {info.name}" if info and info.name else "other bytes"
            return Problem(entry.name, member.name, "header", f"its header at byte {at}", found)
        at += BLOCK
        digest = reader.sha256(at, member.length)
        if digest != member.sha256:
            return Problem(entry.name, member.name, "content", member.sha256, digest)
        at += member.length
        gap = -member.length % BLOCK
        if gap and reader.read(at, gap) != bytes(gap):
            zeros = f"zeros from byte {at}"
            return Problem(entry.name, member.name, "padding", zeros, "other bytes")
        at += gap
    if reader.read(at, BLOCK**2) != end(at):
        last = expected[-1].name
        return Problem(entry.name, last, "end", f"{len(end(at))} zeros from byte {at}", "others")
    return None


def _member_problems(
    reader: ShardReader, size: int, entry: ShardEntry, expected: Sequence[Member]
) -> Iterator[Problem]:
    """Members that are missing, duplicated, unexpected or changed, wherever they now are."""
    actual = dict[str, list[tuple[int, int]]]()
    for name, offset, length in reader.headers(size):
        actual.setdefault(name, []).append((offset, length))
    owners = {member.sha256: member.name for member in expected}
    counts = Counter(member.name for member in expected)
    for member in expected:
        places = actual.get(member.name, [])
        if not places:
            yield _missing(reader, size, entry, member)
        elif len(places) > counts[member.name]:
            offsets = ", ".join(str(offset) for offset, _ in places[:5])
            found = f"{len(places)}, at bytes {offsets}"
            expected_count = str(counts[member.name])
            yield Problem(entry.name, member.name, "duplicated member", expected_count, found)
        else:
            yield from _changed(reader, size, entry, member, places[0], owners)
    for name in actual.keys() - counts.keys():
        yield Problem(entry.name, name, "unexpected member", "no such member", "one")


def _missing(reader: ShardReader, size: int, entry: ShardEntry, member: Member) -> Problem:
    digest = reader.sha256(member.offset, member.length) if member.offset < size else ""
    found = "nothing"
    if digest == member.sha256:
        found = "its bytes, but not its header"
    elif member.offset + member.length > size:
        found = f"the end of the file at byte {size}"
    return Problem(entry.name, member.name, "missing member", f"{member.length} bytes", found)


def _changed(
    reader: ShardReader,
    size: int,
    entry: ShardEntry,
    member: Member,
    place: tuple[int, int],
    owners: Mapping[str, str],
) -> Iterator[Problem]:
    """The problem of a member that is in the tar once; `owners` has member names by sha256."""
    offset, length = place
    if length != member.length:
        found = f"a header that says {length} bytes"
        yield Problem(entry.name, member.name, "content", f"{member.length} bytes", found)
        return
    digest = reader.sha256(offset, length)
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
