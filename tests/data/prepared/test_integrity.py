"""A single pass over a shard shows whether it is whole; what is wrong with it is named."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from derain.data.prepared import integrity
from derain.data.prepared.shards import WrittenShards, write_shards
from derain.data.sources.discover import find_pairs
from derain.errors import DataError
from tests.folders import PairedFolder

Change = Callable[[bytes, dict[str, tarfile.TarInfo]], bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-000000.tar"


@pytest.fixture
def written(paired_folder: PairedFolder, path: Path) -> WrittenShards:
    source = paired_folder(4)
    return write_shards(find_pairs("paired", source).pairs, source, path)


def found(path: Path, written: WrittenShards) -> list[tuple[str, str]]:
    wrong = integrity.find_problems(path, written.entries[0], written.rows)
    assert all(item.expected and item.found and item.shard == path.name for item in wrong)
    return [(item.member, item.kind) for item in wrong]


def test_a_whole_shard_has_no_problem(path: Path, written: WrittenShards) -> None:
    assert found(path, written) == []
    assert len(integrity.indexed_members(written.rows)) == 12


def without(*names: str) -> Change:
    def change(data: bytes, there: dict[str, tarfile.TarInfo]) -> bytes:
        return rebuilt(data, [info for info in there.values() if info.name not in names])

    return change


def twice(name: str) -> Change:
    return lambda data, there: rebuilt(data, [*there.values(), there[name]])


def swapped(data: bytes, there: dict[str, tarfile.TarInfo]) -> bytes:
    """Rainy and clean image of one pair change names."""
    order = list(there.values())
    order[0].name, order[1].name = order[1].name, order[0].name
    return rebuilt(data, order)


def rebuilt(data: bytes, members: list[tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info in members:
            begin = info.offset_data
            archive.addfile(info, io.BytesIO(data[begin : begin + info.size]))
    return buffer.getvalue()


def flipped(at: int) -> Change:
    return lambda data, _: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def cut_before(name: str, less: int = 0) -> Change:
    return lambda data, there: data[: there[name].offset - less]


CHANGES: dict[str, tuple[Change, tuple[str, str]]] = {
    "missing": (without("001.clean.png"), ("001.clean.png", "missing member")),
    "pair missing": (
        without("001.rain.png", "001.clean.png", "001.json"),
        ("001.rain.png", "missing member"),
    ),
    "duplicated": (twice("002.rain.png"), ("002.rain.png", "duplicated member")),
    "swapped": (swapped, ("000.rain.png", "swapped member")),
    "content": (flipped(700), ("000.rain.png", "content")),
    "name": (flipped(2), ("000.rain.png", "missing member")),
    "owner": (flipped(110), ("000.rain.png", "missing member")),
    "cut at a boundary": (cut_before("002.rain.png"), ("002.rain.png", "missing member")),
    "cut inside": (cut_before("002.json", 600), ("002.clean.png", "cut member")),
    "empty": (lambda *_: b"", ("000.rain.png", "missing member")),
    "longer": (lambda data, _: data + b"more", ("003.json", "size")),
    "padding": (lambda data, there: flipped(there["000.json"].offset - 1)(data, there),
                ("000.clean.png", "padding")),
    "end": (lambda data, there: flipped(len(data) - 1)(data, there), ("003.json", "end")),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(change: str, path: Path, written: WrittenShards) -> None:
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        there = {info.name: info for info in archive}
    make, expected = CHANGES[change]
    path.write_bytes(make(data, there))
    assert found(path, written)[0] == expected


def test_a_missing_shard_is_named(path: Path, written: WrittenShards) -> None:
    path.unlink()
    assert found(path, written) == [("000.rain.png to 003.json", "missing shard")]


def test_require_whole_raises_the_first_problem(path: Path, written: WrittenShards) -> None:
    integrity.require_whole(path, written.entries[0], written.rows)
    path.write_bytes(path.read_bytes()[:-1024])
    with pytest.raises(DataError, match=r"shard-000000\.tar: 003\.json: size: expected \d+ bytes"):
        integrity.require_whole(path, written.entries[0], written.rows)


def entry_of(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def patched(block: bytes, at: int, value: bytes) -> bytes:
    """A header with other bytes and their correct checksum."""
    block = block[:at] + value + block[at + len(value) :]
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def raw(info: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    return info.tobuf(form)


PLAIN = raw(entry_of("000.rain.png", size=700), tarfile.USTAR_FORMAT)
HOSTILE = {
    "absolute path": raw(entry_of("/tmp/hostile-absolute", size=4)) + b"evil".ljust(512, b"\0"),
    "parent folder": raw(entry_of("../../hostile-parent", size=4)) + b"evil".ljust(512, b"\0"),
    "symbolic link": raw(entry_of("000.rain.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": raw(entry_of("000.rain.png", type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "device": raw(entry_of("000.rain.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "pipe": raw(entry_of("000.rain.png", type=tarfile.FIFOTYPE)),
    "folder": raw(entry_of("000.rain.png", type=tarfile.DIRTYPE)),
    "sparse file": raw(entry_of("000.rain.png", type=tarfile.GNUTYPE_SPARSE, size=2**33)),
    "long name": raw(entry_of("a/" * 5000 + "x.png")),
    "pax header of 4 GiB": patched(PLAIN, 156, b"x")[:124] + b"37777777777" + PLAIN[135:],
    "8 EiB": patched(PLAIN, 124, b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7),
    "negative size": patched(PLAIN, 124, b"\xff" * 12),
    "size that is not a number": patched(PLAIN, 124, b"99999999999\0"),
    "NUL in the name": patched(PLAIN, 3, b"\0"),
    "right-to-left name": raw(entry_of("000\u202egnp.niar.png", size=0)),
    "10,000 members": raw(entry_of("000.rain.png"), tarfile.USTAR_FORMAT) * 10_000,
    "case": raw(entry_of("000.RAIN.png", size=700)),
    "zeros": bytes(2**20),
    "not a tar": b"\x1f\x8b" + bytes(range(256)) * 100,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tar_is_only_ever_read(kind: str, path: Path, written: WrittenShards) -> None:
    rest = path.read_bytes()
    before = {item: item.read_bytes() for item in path.parent.rglob("*") if item.is_file()}
    for data in (HOSTILE[kind], HOSTILE[kind] + rest, rest[:-1024] + HOSTILE[kind]):
        path.write_bytes(data)
        assert found(path, written)
    before.pop(path)
    path.unlink()
    assert {i: i.read_bytes() for i in path.parent.rglob("*") if i.is_file()} == before
    assert not Path("/tmp/hostile-absolute").exists()
    assert not (path.parents[2] / "hostile-parent").exists()


def test_hostile_tars_take_no_memory(path: Path, written: WrittenShards) -> None:
    """Headers that claim 4 GiB to 8 EiB, in a process of its own that may use 1 GiB.

    VmHWM is its own peak; ru_maxrss would start at the peak of the parent process.
    """
    tars = []
    for number, kind in enumerate(HOSTILE):
        tars.append(path.with_name(f"{number}.tar"))
        tars[-1].write_bytes(HOSTILE[kind] + path.read_bytes())
    pq.write_table(written.rows, path.with_name("rows.parquet"))
    script = (
        "import sys, pyarrow.parquet as pq; from pathlib import Path;"
        "from derain.data.prepared import integrity;"
        "from derain.data.prepared.manifest import ShardEntry;"
        "sizes = map(int, sys.argv[3:5]); rows = pq.read_table(sys.argv[1]);"
        "entry = ShardEntry(sys.argv[2], *sizes, '');"
        "assert all(integrity.find_problems(Path(tar), entry, rows) for tar in sys.argv[5:]);"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    entry = written.entries[0]
    assert entry is not None
    fields = (entry.name, str(entry.bytes), str(entry.pairs))
    command = [sys.executable, "-c", script, str(path.with_name("rows.parquet")), *fields]
    done = subprocess.run([*command, *map(str, tars)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**20, "KiB: 1 GiB"
