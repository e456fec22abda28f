"""Names of shards: they tell datasets apart and have no gap, whatever happened on the way."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray.data
import webdataset
from webdataset.cache import url_to_cache_name

from derain.data.prepared.card import CARD, CROISSANT, card, croissant
from derain.data.prepared.index import INDEX, rows_sha256, write_index
from derain.data.prepared.manifest import MANIFEST, ShardEntry, open_prepared, write_manifest
from derain.errors import DataError, StorageError
from derain.pipelines.prepare.finished_shards import PARTS
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.plan import make_plan
from derain.pipelines.prepare.shard_names import (
    final_names,
    is_shard_name,
    rename,
    shard_name,
    take_back,
)
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from derain.storage import files
from tests.folders import PairedFolder, digests, noise_image, write_pairs
from tests.pipelines.prepare.unfinished import index_cannot_be_written
from tests.storage.faulty_store import BUCKET, FaultyStore

SHARDS = 4


@pytest.fixture
def source(paired_folder: PairedFolder) -> Path:
    """Pairs of noise of more than a MiB each, so that every pair fills a shard."""
    return paired_folder(SHARDS, width=450, height=420)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.tar"))


def numbers(folder: Path) -> list[int]:
    """The numbers of the shards; each name begins with the same dataset, split and digest."""
    found = [re.fullmatch(r"(paired-train-[0-9a-f]{8})-(\d{6})\.tar", it) for it in names(folder)]
    assert all(found)
    assert len({match[1] for match in found if match}) == 1
    return [int(match[2]) for match in found if match]


def shard_prefix(source: Path, **changes: object) -> str:
    options = replace(PrepareOptions(), **changes)  # type: ignore[arg-type]
    return make_plan("paired", source, source, options)[0].prefix


def test_the_name_depends_on_content_and_settings(tmp_path: Path) -> None:
    kinds = (("a/rain", 40), ("b/rain", 41), ("c/rain", 40), ("d/rain", 40))
    sources = [write_pairs(tmp_path / name, 2, width=width, height=32) for name, width in kinds]
    pixels = sources[3] / "rain/000.png"
    pixels.write_bytes(pixels.read_bytes()[::-1])  # with the same size
    one, other, again, reversed_ = map(shard_prefix, sources)
    assert one == again
    options = [{"split": "x"}, {"decode": True}, {"pairs_per_shard": 9}]
    changed = [shard_prefix(sources[0], **changes) for changes in options]
    assert len({one, other, reversed_, *changed}) == 6
    assert re.fullmatch(r"paired-train-[0-9a-f]{8}", one)


def test_readers_with_a_cache_of_files_do_not_confuse_two_datasets(tmp_path: Path) -> None:
    sources = [write_pairs(tmp_path / f"{n}/set", 2, width=n, height=32) for n in (40, 41)]
    names = [shard_name(shard_prefix(source), 0) for source in sources]
    cached = {url_to_cache_name(f"https://example.org/{n}/{it}") for n, it in enumerate(names)}
    assert cached == set(names)
    assert len(cached) == 2


def quarantine(source: Path, number: int) -> None:
    (source / "rain" / f"{number:03d}.png").write_bytes(b"not an image")


@pytest.mark.usefixtures("ray_cluster")
def test_a_part_without_usable_pairs_leaves_no_gap(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine(source, 1)
    out = tmp_path / "out"
    done = prepare("paired", source, out, shard_mib=1)
    assert (done.shards, numbers(out)) == (3, [0, 1, 2])
    assert verify(out).problems == []
    assert open_prepared(out).column("shard").tolist() == names(out)
    monkeypatch.chdir(out)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    assert keys_by_card(out, str(tmp_path / "hf")) == [["000", "002", "003"]] * 3


def keys_by_card(folder: Path, cache: str) -> list[list[str]]:
    """The keys that each of the card's commands reads, with the files that it names."""
    (block,) = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    first, second, third = block.splitlines()
    (braces,) = re.findall(r'^webdataset\.WebDataset\("(.*)"\)$', first)
    (pattern,) = re.findall(r'^datasets\.load_dataset\("webdataset", data_files="(.*)"\)$', second)
    ((begin, count),) = re.findall(
        r'^ray\.data\.read_webdataset\(\[f"(.*)\{n:06d\}\.tar" for n in range\((\d+)\)\]\)$', third
    )
    shards = [f"{folder}/{begin}{n:06d}.tar" for n in range(int(count))]
    loaded = datasets.load_dataset("webdataset", data_files=pattern, cache_dir=cache)
    return [
        [sample["__key__"] for sample in webdataset.WebDataset(braces)],
        list(loaded["train"]["__key__"]),
        sorted(row["__key__"] for row in ray.data.read_webdataset(shards).take_all()),
    ]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("stop", [0, 2])
def test_renaming_may_be_interrupted(source: Path, tmp_path: Path, stop: int) -> None:
    quarantine(source, 1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = prepare("paired", source, whole, shard_mib=1)
    (broken / names(whole)[stop]).mkdir(parents=True)  # so that this name cannot be given
    (broken / PARTS).mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        prepare("paired", source, broken, shard_mib=1)
    assert set(names(whole)[:stop]) < set(names(broken))
    assert not (broken / MANIFEST).exists()
    (broken / names(whole)[stop]).rmdir()
    times = {path.stat().st_mtime_ns for path in broken.glob("*.tar")}
    assert (
        prepare("paired", source, broken, shard_mib=1).manifest_sha256 == expected.manifest_sha256
    )
    assert digests(broken) == digests(whole)
    assert {path.stat().st_mtime_ns for path in broken.glob("*.tar")} == times


@pytest.mark.usefixtures("ray_cluster")
def test_an_image_that_is_repaired_in_between_leaves_no_trace(source: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    shutil.copytree(source, tmp_path / "good")
    quarantine(source, 2)
    with index_cannot_be_written(broken):
        prepare("paired", source, broken, shard_mib=1)
    before = names(broken)
    shutil.copy2(tmp_path / "good/rain/002.png", source / "rain/002.png")
    prepare("paired", source, broken, shard_mib=1)
    prepare("paired", source, whole, shard_mib=1)
    assert digests(broken) == digests(whole)
    assert numbers(broken) == [0, 1, 2, 3]
    assert not set(before) & set(names(broken))


def test_names_change_only_if_a_part_is_not_one_shard() -> None:
    def parts(*counts: int) -> list[list[ShardEntry]]:
        return [
            [ShardEntry(f"p-{part}-{n}", 1, 1, "") for n in range(count)]
            for part, count in enumerate(counts)
        ]

    assert list(final_names("a-b-00000000", parts(1, 1)).values()) == [
        "a-b-00000000-000000.tar",
        "a-b-00000000-000001.tar",
    ]
    shapes = [(1, 1), (1, 0, 1), (2, 0), (0, 2), (1, 2)]
    found = [list(final_names("a-b-00000000", parts(*shape)).values()) for shape in shapes]
    assert len({group[0] for group in found}) == len(shapes)
    assert [name[-10:-4] for name in found[-1]] == ["000000", "000001", "000002"]
    assert list(final_names("a-b-00000000", parts(0, 2))) == ["p-1-0", "p-1-1"]


@pytest.mark.parametrize("done", range(4))
def test_taking_back_restores_the_names(tmp_path: Path, done: int) -> None:
    moves = {f"old-{n}": f"new-{n}" for n in range(3)}
    for name in moves:
        (tmp_path / name).write_text(name)
    rename(tmp_path, tmp_path / "renamed", moves)
    assert sorted(path.name for path in tmp_path.glob("new-*")) == sorted(moves.values())
    for name, target in list(moves.items())[done:]:  # as if it had been interrupted after `done`
        (tmp_path / target).rename(tmp_path / name)
    if done:  # an object store may be interrupted between a copy and the deletion
        shutil.copy(tmp_path / f"new-{done - 1}", tmp_path / f"old-{done - 1}")
    take_back(tmp_path, tmp_path / "renamed")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {n: n for n in moves}
    take_back(tmp_path, tmp_path / "renamed")


def test_shards_are_renamed_in_an_object_store(object_store: FaultyStore) -> None:
    out = files.locate(f"s3://{BUCKET}/prepared")
    moves = {f"old-{n}": f"new-{n}" for n in range(3)}
    for name in moves:
        (out / name).write_text(name)
    object_store.errors = 0.1
    rename(out, out / "renamed", moves)
    assert {path.name: path.read_text() for path in out.iterdir() if path.name != "renamed"} == {
        target: name for name, target in moves.items()
    }
    (out / "old-1").write_text("old-1")  # as if it had been interrupted before the deletion
    take_back(out, out / "renamed")
    assert {path.name: path.read_text() for path in out.iterdir()} == {n: n for n in moves}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("shard-000000.tar", True), ("paired-train-0123abcd-000001.tar", True)),
        *(
            ("paired-train-0123abcd-000001-01.tar", True),
            ("paired-test-0123abcd-000001.tar", False),
        ),
        *(("thesis.tar", False), ("paired-train-000001.tar", False)),
    ],
)
def test_only_names_of_this_dataset_are_its_shards(name: str, expected: bool) -> None:
    assert is_shard_name(name, "paired", "train") == expected
    assert is_shard_name(name) == (expected or "0123abcd" in name)


def renamed_as_before(out: Path) -> None:
    """Name shards as version 0.1.0 did, in the manifest and in the index too."""
    prepared = open_prepared(out)
    entries, tables = [], []
    for number, entry in enumerate(prepared.manifest.shards):
        name = f"shard-{number:06d}.tar"
        (out / entry.name).rename(out / name)
        rows = prepared.index.filter(pc.equal(prepared.index["shard"], entry.name))
        column = pa.array(np.full(len(rows), name).tolist())
        rows = rows.set_column(rows.schema.get_field_index("shard"), "shard", column)
        tables.append(rows)
        entries.append(replace(entry, name=name, rows_sha256=rows_sha256(rows)))
    digest = write_index(out / INDEX, tables)
    manifest = replace(prepared.manifest, shards=tuple(entries), index_sha256=digest)
    write_manifest(out, manifest)
    (out / CROISSANT).write_text(croissant(manifest))
    (out / CARD).write_text(card(manifest))


@pytest.mark.usefixtures("ray_cluster")
def test_a_dataset_of_an_earlier_version_is_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("paired", source, out, shard_mib=1)
    renamed_as_before(out)
    before = digests(out)
    done = prepare("paired", source, out, shard_mib=1)
    assert (done.reused, done.shards) == (True, SHARDS)
    assert digests(out) == before
    assert verify(out).ok
    assert 'WebDataset("shard-{000000..000003}.tar")' in (out / CARD).read_text()
    (_, shards) = json.loads((out / CROISSANT).read_text())["distribution"]
    assert shards["includes"] == "shard-*.tar"
    noise_image(9, width=450, height=420).save(source / "rain/000.png")
    (out / MANIFEST).unlink()
    prepare("paired", source, out, shard_mib=1)
    assert numbers(out) == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["{", "[]", "5"])
def test_names_that_nobody_knows_are_not_taken_back(tmp_path: Path, text: str) -> None:
    (tmp_path / "renamed").write_text(text)
    with pytest.raises(DataError, match=r"renamed: damaged.* Remove the folder"):
        take_back(tmp_path, tmp_path / "renamed")
