"""Where images are in a cache: one after another, a clean image that pairs share once; and the file
that keeps it beside the cache, which is right, made again or not used."""

import copy
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks._small import write_index_only
from derain.data.loading import cache_layout
from derain.data.loading.cache_layout import CacheLayout, kept_layout, places_path
from derain.data.prepared.index import index_table
from derain.data.prepared.manifest import Manifest, Prepared, ShardEntry, open_prepared
from tests.users import give_away, unprivileged


def scenes(seed: int, piece: int) -> Prepared:
    """Two shards of scenes of one to four pairs, each scene of a size of its own; the index in
    pieces of some rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for shard in ("a.tar", "b.tar"):
        for scene in range(rng.integers(1, 12)):
            size = {"height": int(rng.integers(1, 9)), "width": int(rng.integers(1, 9))}
            row = {"shard": shard, "clean_offset": scene * 1024, **size}
            rows += [row] * int(rng.integers(1, 5))
    entries = tuple(ShardEntry(shard, 0, 0, "") for shard in ("a.tar", "b.tar"))
    manifest = Manifest("x", "train", len(rows), 0, entries, "", "", {})
    whole: pa.Table = index_table(rows)
    begins = range(0, len(rows), piece)
    table = pa.concat_tables([whole.slice(begin, piece) for begin in begins])
    assert table.column("shard").num_chunks == len(begins)
    return Prepared(Path("none"), manifest, table)


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_images_follow_each_other_and_shared_ones_are_there_once(piece: int) -> None:
    for seed in range(10):
        dataset = scenes(seed, piece)
        layout = cache_layout.cache_layout(dataset)
        at, before = 0, None
        for number, row in enumerate(dataset.index.to_pylist()):
            image = 3 * row["height"] * row["width"]
            assert layout.rain[number] == at
            at += image
            if (row["shard"], row["clean_offset"]) != before:
                before, shared = (row["shard"], row["clean_offset"]), at
                at += image
            assert layout.clean[number] == shared
            size = layout.places["height"][number], layout.places["width"][number]
            assert size == (row["height"], row["width"])
        assert layout.size == at


@pytest.fixture
def dataset(tmp_path: Path) -> Prepared:
    return open_prepared(write_index_only(tmp_path / "own", 700))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Of which only the layout will be there."""
    return tmp_path / "caches" / "0123.rgb"


def equal(layout: CacheLayout, dataset: Prepared) -> bool:
    expected = cache_layout.cache_layout(dataset)
    return layout.size == expected.size and np.array_equal(layout.places, expected.places)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Prepared]:
    """Grows whenever a layout is computed."""
    found: list[Prepared] = []
    real = cache_layout._parts

    def noted(prepared: Prepared, *rest: Any) -> Any:
        found.append(prepared)
        return real(prepared, *rest)

    monkeypatch.setattr(cache_layout, "_parts", noted)
    return found


def test_it_is_computed_once_and_mapped_by_every_process(
    dataset: Prepared, cache: Path, computed: list[Prepared]
) -> None:
    layouts = [kept_layout(dataset, cache) for _ in range(3)]
    assert len(computed) == 1
    layouts.append(copy.deepcopy(layouts[0]))  # as another process gets it
    places_path(cache).unlink()  # what is mapped stays
    for layout in layouts:
        assert layout.path == places_path(cache)
        assert not layout.places.flags.writeable
        assert equal(layout, dataset)


def test_a_record_takes_24_bytes_of_the_disk(dataset: Prepared, cache: Path) -> None:
    kept_layout(dataset, cache)
    assert places_path(cache).stat().st_size == 64 + 24 * len(dataset)


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 7, 8, 40, 48, 56, 64, 64 + 24 * 699 + 23])
def test_a_byte_that_changed_is_noticed(
    at: int, dataset: Prepared, cache: Path, computed: list[Prepared]
) -> None:
    """Of the version, the digest, the counts, the checksum, the first record and the last."""
    is_made_again(flipped(at), dataset, cache, computed)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:0],
        lambda data: data[:-24],
        lambda data: data[:60],
        lambda data: data + b"0",
    ],
)
def test_a_file_of_another_length_is_noticed(
    change: Callable[[bytes], bytes], dataset: Prepared, cache: Path, computed: list[Prepared]
) -> None:
    is_made_again(change, dataset, cache, computed)


def is_made_again(
    change: Callable[[bytes], bytes], dataset: Prepared, cache: Path, computed: list[Prepared]
) -> None:
    kept_layout(dataset, cache)
    path = places_path(cache)
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert equal(kept_layout(dataset, cache), dataset)
    assert path.read_bytes() == before
    assert len(computed) == 3  # one of them to compare with


def test_that_of_another_index_is_not_used(dataset: Prepared, cache: Path, tmp_path: Path) -> None:
    """Of as many pairs, under the same name."""
    other = open_prepared(write_index_only(tmp_path / "other", 700, a_shard=10))
    kept_layout(other, cache)
    before = places_path(cache).read_bytes()
    assert equal(kept_layout(dataset, cache), dataset)
    assert places_path(cache).read_bytes() != before


def test_processes_may_write_it_at_once(dataset: Prepared, cache: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        layouts = list(pool.map(lambda _: kept_layout(dataset, cache), range(64)))
    assert all(equal(layout, dataset) for layout in layouts)
    assert [path.name for path in cache.parent.iterdir()] == [places_path(cache).name]


def test_where_it_cannot_be_written_it_is_in_memory(
    dataset: Prepared, cache: Path, computed: list[Prepared]
) -> None:
    cache.parent.mkdir()
    cache.parent.chmod(0o555)
    with unprivileged():
        layout = kept_layout(dataset, cache)
    cache.parent.chmod(0o755)
    assert layout.path is None
    assert len(computed) == 1
    assert equal(copy.deepcopy(layout), dataset)
    assert list(cache.parent.iterdir()) == []


@pytest.mark.parametrize("mode", [0o444, 0])
def test_another_user_s_is_used_if_it_can_be_read(
    mode: int, dataset: Prepared, cache: Path, computed: list[Prepared]
) -> None:
    kept_layout(dataset, cache)
    places_path(cache).chmod(mode)
    cache.parent.chmod(0o555)
    give_away(cache.parent)
    with unprivileged():
        layout = kept_layout(dataset, cache)
    cache.parent.chmod(0o755)
    assert (layout.path is None) == (mode == 0) == (len(computed) == 2)
    assert equal(layout, dataset)


def test_a_full_disk_leaves_nothing_behind(
    dataset: Prepared, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_layout, "_header", refused)
    layout = kept_layout(dataset, cache)
    assert layout.path is None
    assert equal(layout, dataset)
    assert list(cache.parent.iterdir()) == []
