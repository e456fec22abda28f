"""Cache and loader: the source's pixels, each once an epoch, the same however they are read."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.data import cache
from derain.data.cache import MappedPixels, TarPixels, open_pixels
from derain.data.loader import Batch, Loader, Position
from derain.data.manifest import (
    Manifest,
    Prepared,
    open_prepared,
    rows_sha256,
    write_index,
    write_manifest,
)
from derain.data.shards import write_shard
from derain.data.sources import find
from derain.errors import DataError
from tests.conftest import PairedFolder


def prepared(source: Path, out: Path, shards: int = 2) -> Prepared:
    """A prepared dataset without Ray, straight from the parts."""
    out.mkdir()
    pairs = find("paired", source).pairs
    parts = [pairs[first::shards] for first in range(shards)]
    written = [
        write_shard(part, source, out / f"shard-{n:06d}.tar") for n, part in enumerate(parts)
    ]
    rows = [row for shard in written for row in shard.rows]
    entries = tuple(shard.entry for shard in written if shard.entry)
    write_index(out, rows)
    manifest = Manifest("paired", "train", len(rows), 0, entries, rows_sha256(rows), "", {})
    write_manifest(out, manifest)
    return open_prepared(out)


@pytest.fixture
def dataset(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    return prepared(paired_folder(13), tmp_path / "prepared")


def test_cache_and_tars_give_the_source_pixels(dataset: Prepared, tmp_path: Path) -> None:
    cached = open_pixels(dataset, folder=None, budget_gib=1)
    decoded = open_pixels(dataset, folder=None, budget_gib=0)
    assert isinstance(cached, MappedPixels)
    assert isinstance(decoded, TarPixels)
    for sample, row in enumerate(dataset.index.to_pylist()):
        for side, name in enumerate(("rain", "clean")):
            source = np.asarray(Image.open(tmp_path / "source" / row[f"{name}_source"]))
            assert np.array_equal(cached[sample][side], source)
            assert np.array_equal(decoded[sample][side], source)


def test_a_finished_cache_is_reused(dataset: Prepared, tmp_path: Path) -> None:
    open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    (file,) = (tmp_path / "c").glob("*.rgb")
    inode = file.stat().st_ino
    open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    assert file.stat().st_ino == inode


def test_the_least_recently_used_cache_goes_first(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    sets = [
        prepared(paired_folder(count, name=f"s{count}"), tmp_path / f"p{count}")
        for count in (5, 6, 7)
    ]
    pair_gib = 2 * 40 * 32 * 3 / 2**30
    for used, seconds in ((sets[0], 100), (sets[1], 50)):
        open_pixels(used, folder=tmp_path / "c", budget_gib=12 * pair_gib)
        path = tmp_path / "c" / f"{used.manifest.sha256()}.rgb"
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)
    open_pixels(sets[2], folder=tmp_path / "c", budget_gib=13 * pair_gib)
    left = {path.stem for path in (tmp_path / "c").glob("*.rgb")}
    assert left == {sets[1].manifest.sha256(), sets[2].manifest.sha256()}


def build(folder: Path, place: Path, results: multiprocessing.Queue) -> None:
    results.put(int(np.sum(open_pixels(open_prepared(folder), folder=place, budget_gib=1)[3])))


def test_two_builders_at_once_make_one_whole_cache(dataset: Prepared, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue = context.Queue()
    both = [
        context.Process(target=build, args=(dataset.folder, tmp_path / "c", results))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    sums = {results.get(timeout=60) for _ in both}
    for process in both:
        process.join()
    assert sums == {int(np.sum(TarPixels(dataset)[3]))}


def test_a_damaged_shard_is_refused_and_leaves_no_cache(dataset: Prepared, tmp_path: Path) -> None:
    shard = dataset.folder / dataset.manifest.shards[1].name
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=f"{shard.name}: damaged"):
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    assert not list((tmp_path / "c").glob("*.rgb"))


def test_a_missing_shard_is_named(dataset: Prepared, tmp_path: Path) -> None:
    (dataset.folder / "shard-000000.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000000\.tar: missing"):
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)


def test_a_killed_builder_leaves_nothing_that_looks_whole(
    dataset: Prepared, tmp_path: Path
) -> None:
    place = tmp_path / "c"
    place.mkdir()
    (place / f"{dataset.manifest.sha256()}.rgb.tmp").write_bytes(b"half")
    pixels = open_pixels(dataset, folder=place, budget_gib=1)
    assert np.array_equal(pixels[0], TarPixels(dataset)[0])
    assert not list(place.glob("*.tmp"))


def test_unfinished_and_foreign_folders_are_refused(dataset: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such prepared dataset"):
        open_prepared(tmp_path / "none")
    (dataset.folder / "index.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read"):
        open_prepared(dataset.folder)
    (dataset.folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="not a finished prepared dataset"):
        open_prepared(dataset.folder)


def test_cache_folder_follows_option_then_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.cache_folder(tmp_path) == tmp_path
    assert cache.cache_folder(None) == Path(os.environ["DERAIN_CACHE_DIR"])
    monkeypatch.delenv("DERAIN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder(None) == tmp_path / "xdg" / "derain"


def loader(dataset: Prepared, *, batch_size: int = 4, rank: int = 0, world: int = 1) -> Loader:
    return Loader(
        [TarPixels(dataset), TarPixels(dataset)],
        batch_size=batch_size,
        crop_px=16,
        seed=3,
        rank=rank,
        world=world,
    )


def epoch(loader: Loader, at: Position) -> list[Batch]:
    batches = []
    number = at.epoch
    while at.epoch == number:
        batches.append(loader.batch(at))
        at = batches[-1].following
    return batches


def test_an_epoch_has_every_sample_once(dataset: Prepared) -> None:
    batches = epoch(loader(dataset), Position(2))
    ids = np.concatenate([batch.ids for batch in batches])
    assert sorted(ids.tolist()) == list(range(26))
    assert [len(batch.ids) for batch in batches] == [4] * 6 + [2]
    assert batches[-1].following == Position(3, 0, step=7)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_global_batch_does_not_depend_on_the_number_of_ranks(
    dataset: Prepared, world: int
) -> None:
    whole = epoch(loader(dataset), Position())
    parts = [epoch(loader(dataset, rank=rank, world=world), Position()) for rank in range(world)]
    for number, batch in enumerate(whole):
        shared = [part[number] for part in parts]
        assert np.concatenate([part.ids for part in shared]).tolist() == batch.ids.tolist()
        assert sum(part.share for part in shared) == pytest.approx(1)
        rain = np.concatenate([part.rain for part in shared if len(part.ids)])
        assert np.array_equal(rain, batch.rain)


def test_a_rank_without_samples_still_takes_the_step(dataset: Prepared) -> None:
    last = epoch(loader(dataset, rank=0, world=3), Position())[-1]
    assert (last.share, last.ids.tolist(), len(last.rain)) == (0, [], 1)


def test_a_position_gives_the_same_batch_without_a_history(dataset: Prepared) -> None:
    passed = epoch(loader(dataset), Position(1))[3]
    again = loader(dataset).batch(Position(1, 12))
    assert np.array_equal(passed.rain, again.rain)
    assert np.array_equal(passed.clean, again.clean)


def test_crops_change_from_epoch_to_epoch(dataset: Prepared) -> None:
    def crop_of(sample: int, number: int) -> bytes:
        for batch in epoch(loader(dataset), Position(number)):
            for place in np.flatnonzero(batch.ids == sample):
                return batch.rain[place].tobytes()
        raise AssertionError(sample)

    assert crop_of(5, 0) != crop_of(5, 1)
