"""`verify` finds and names each of two hundred random damages of a prepared dataset."""

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from derain.data.prepared.card import CARD, CROISSANT, card, croissant
from derain.data.prepared.index import INDEX, write_index
from derain.data.prepared.manifest import MANIFEST, Manifest, open_prepared
from derain.data.prepared.manifest import write_manifest as write
from derain.data.prepared.shards import write_shards
from derain.data.sources.discover import find_pairs
from derain.data.sources.pairs import Pair
from derain.errors import DataError
from derain.pipelines.verify import verify
from tests.folders import PairedFolder, write_scenes
from tests.users import unprivileged

DAMAGES = 200


@pytest.fixture
def prepared(paired_folder: PairedFolder, tmp_path: Path) -> Path:
    """Three shards of four small pairs."""
    source, out = paired_folder(12, width=24, height=16), tmp_path / "prepared"
    out.mkdir()
    return written(source, find_pairs("paired", source).pairs, out)


def written(source: Path, pairs: Sequence[Pair], out: Path) -> Path:
    shards = [
        write_shards(pairs[4 * n : 4 * n + 4], source, out / f"shard-{n:06d}.tar") for n in range(3)
    ]
    entries = tuple(entry for shard in shards for entry in shard.entries)
    index = write_index(out / INDEX, (shard.rows for shard in shards))
    size = sum(entry.bytes for entry in entries)
    manifest = Manifest("paired", "train", 12, size, entries, index, "", {})
    write(out, manifest)
    (out / CROISSANT).write_text(croissant(manifest))
    (out / CARD).write_text(card(manifest))
    return out


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three shards of one scene each: a sample with a clean image and four rainy ones."""
    out = tmp_path / "scenes"
    out.mkdir()
    source = write_scenes(tmp_path / "images", scenes=3, rains=4, width=24, height=16)
    return written(source, find_pairs("rain14000", source, clean_once=True).pairs, out)


def some_shard(folder: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(folder.glob("shard-*.tar")))


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    with path.open("rb+") as file:
        file.truncate(size)


def flip_a_bit_of_a_shard(folder: Path, draw: random.Random) -> None:
    flip(some_shard(folder, draw), draw)


def flip_a_bit_of_the_index(folder: Path, draw: random.Random) -> None:
    flip(folder / INDEX, draw)


def flip_a_bit_of_the_manifest(folder: Path, draw: random.Random) -> None:
    flip(folder / MANIFEST, draw)


def cut_anywhere(folder: Path, draw: random.Random) -> None:
    path = some_shard(folder, draw)
    cut(path, draw.randrange(path.stat().st_size))


def cut_at_a_member(folder: Path, draw: random.Random) -> None:
    path = some_shard(folder, draw)
    with tarfile.open(path) as archive:
        cut(path, draw.choice([info.offset for info in archive]))


def rebuild(path: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> None:
    """A valid tar with the same members after a change."""
    with tarfile.open(path) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))


def lose_a_member(folder: Path, draw: random.Random) -> None:
    rebuild(some_shard(folder, draw), lambda members: members.pop(draw.randrange(len(members))))  # type: ignore[arg-type,return-value]


def repeat_a_member(folder: Path, draw: random.Random) -> None:
    rebuild(
        some_shard(folder, draw),
        lambda members: members.insert(draw.randrange(len(members)), draw.choice(members)),
    )


def swap_members(folder: Path, draw: random.Random) -> None:
    def swap(members: list[tuple[str, bytes]]) -> None:
        one, other = draw.sample(range(len(members)), 2)
        (name, data), (name2, data2) = members[one], members[other]
        members[one], members[other] = (name, data2), (name2, data)

    rebuild(some_shard(folder, draw), swap)


def shuffle_members(folder: Path, draw: random.Random) -> None:
    def shuffle(members: list[tuple[str, bytes]]) -> None:
        before = list(members)
        while members == before:
            draw.shuffle(members)

    rebuild(some_shard(folder, draw), shuffle)


def lose_a_shard(folder: Path, draw: random.Random) -> None:
    some_shard(folder, draw).unlink()


def add_a_shard(folder: Path, draw: random.Random) -> None:
    shutil.copy(some_shard(folder, draw), folder / f"shard-{draw.randrange(3, 999):06d}.tar")


def swap_shards(folder: Path, draw: random.Random) -> None:
    one, other = draw.sample(sorted(folder.glob("shard-*.tar")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def change_the_index(folder: Path, draw: random.Random) -> None:
    rows = pq.read_table(folder / INDEX)
    tree = rows.to_pylist()
    column = draw.choice([name for name in rows.column_names if name != "labels"])
    row = draw.choice(tree)
    row[column] = row[column] + 512 if isinstance(row[column], int) else f"{row[column]}0"
    pq.write_table(pa.Table.from_pylist(tree, schema=rows.schema), folder / INDEX)


def lose_a_row(folder: Path, draw: random.Random) -> None:
    rows = pq.read_table(folder / INDEX)
    at = draw.randrange(len(rows))
    pq.write_table(pa.concat_tables([rows.slice(0, at), rows.slice(at + 1)]), folder / INDEX)


def edit_the_manifest(folder: Path, draw: random.Random) -> None:
    tree = json.loads((folder / MANIFEST).read_bytes())
    tree[draw.choice(["pairs", "bytes"])] += 1
    (folder / MANIFEST).write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n")


def flip_a_bit_of_the_metadata(folder: Path, draw: random.Random) -> None:
    flip(folder / CROISSANT, draw)


def lose_a_description(folder: Path, draw: random.Random) -> None:
    (folder / draw.choice([CARD, CROISSANT])).unlink()


KINDS = [
    flip_a_bit_of_a_shard, flip_a_bit_of_the_index, flip_a_bit_of_the_manifest, cut_anywhere,
    cut_at_a_member, lose_a_member, repeat_a_member, swap_members, shuffle_members, lose_a_shard,
    add_a_shard, swap_shards, change_the_index, lose_a_row, edit_the_manifest,
    flip_a_bit_of_the_metadata, lose_a_description,
]  # fmt: skip


def test_an_intact_dataset_has_no_problem(prepared: Path) -> None:
    (prepared / ".shard-000001.tar.0123abcd.tmp").touch()  # left by a killed writer, never read
    with (prepared / CARD).open("a") as file:
        file.write("Thanks to all who took these images.\n")
    done = verify(prepared)
    assert (done.ok, done.problems, done.pairs, done.shards) == (True, [], 12, 3)
    assert done.manifest_sha256 == open_prepared(prepared).manifest.sha256()


def test_files_of_other_tools_are_noted_and_not_checked(
    prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """webdataset, wids, DALI and desktops leave files beside the shards; no reader takes them for
    one."""
    (shard, *_) = sorted(prepared.glob("*.tar"))
    left = [f"{shard.name}.idx", f"{shard.name}.json", f"{shard.name}.index", f"{shard.stem}.idx"]
    left += ["shardindex.json", ".DS_Store", f".{shard.name}.0123abcd.tmp"]
    for name in left:
        (prepared / name).write_text("v1.2 1")
    (prepared / ".cache").mkdir()
    done = verify(prepared)
    assert (done.ok, done.problems) == (True, [])
    (note,) = done.notes
    assert note.startswith("not part of the dataset and not checked: .DS_Store, .cache, ")
    assert note.endswith(" and 3 more")
    assert note in caplog.text


@pytest.mark.parametrize("name", ["copy.tar", "shard-000000.tar.1", "shard-000003.tar.gz"])
def test_an_extra_tar_is_a_problem(prepared: Path, name: str) -> None:
    shutil.copy(prepared / "shard-000000.tar", prepared / name)
    done = verify(prepared)
    assert [(item.shard, item.kind) for item in done.problems] == [(name, "extra shard")]
    assert done.notes == []


def test_every_damage_is_found(prepared: Path, scenes: Path, tmp_path: Path) -> None:
    missed = []
    for number in range(DAMAGES):
        draw = random.Random(number)
        folder = tmp_path / "damaged"
        shutil.copytree((prepared, scenes)[number // len(KINDS) % 2], folder)
        damage = KINDS[number % len(KINDS)]
        damage(folder, draw)
        done = verify(folder)
        named = all(item.shard and item.member and item.found for item in done.problems)
        if done.ok or not named or not all(item.expected for item in done.problems):
            missed.append((number, damage.__name__, [str(item) for item in done.problems]))
        shutil.rmtree(folder)
    assert not missed


def test_a_damaged_index_names_the_row(prepared: Path) -> None:
    change_the_index(prepared, random.Random(1))
    kinds = {item.kind: item for item in verify(prepared).problems}
    assert set(kinds) == {"index file", "index"}
    assert kinds["index"].shard.startswith("shard-")


def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such prepared dataset"):
        verify(tmp_path / "none")


def test_a_file_that_may_not_be_read_is_a_problem_and_the_others_are_checked(
    prepared: Path,
) -> None:
    shards = sorted(prepared.glob("*.tar"))
    for path in (shards[0], prepared / CROISSANT):
        path.chmod(0)
    flip = bytearray(shards[1].read_bytes())
    flip[-2000] ^= 1
    shards[1].write_bytes(flip)
    with unprivileged():
        found = {(it.shard, it.kind): it.found for it in verify(prepared).problems}
    assert found.pop((shards[0].name, "unreadable file")) == "Permission denied"
    assert found.pop((CROISSANT, "unreadable file")) == "Permission denied"
    assert {shard for shard, _ in found} == {shards[1].name}
    (prepared / INDEX).chmod(0)
    with unprivileged():
        kinds = [(it.shard, it.kind) for it in verify(prepared).problems]
    assert (INDEX, "unreadable file") in kinds
