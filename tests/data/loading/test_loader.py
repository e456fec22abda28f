"""Cache and loader: the pixels of the source, each once per epoch, however they are stored."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks._small import write_dataset
from derain.config import Config
from derain.config.training import Stage
from derain.data.loading.cache import MappedPixels, TarPixels, open_pixels
from derain.data.loading.loader import Loader, Position, open_loader
from derain.data.loading.order import Recipe
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DataError, DerainError
from tests.data.loading.batches import epoch, loader, take
from tests.folders import PairedFolder


@pytest.fixture
def dataset(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    return write_dataset(paired_folder(13), tmp_path / "prepared")


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
        write_dataset(paired_folder(count, name=f"s{count}"), tmp_path / f"p{count}")
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
    found = (
        rf"damaged: {shard.name}: 001\.rain\.png: content: expected sha256 \w+, found sha256 \w+"
    )
    with pytest.raises(DataError, match=found):
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    assert not list((tmp_path / "c").glob("*.rgb"))


def test_a_missing_shard_is_named(dataset: Prepared, tmp_path: Path) -> None:
    (dataset.folder / "shard-000000.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000000\.tar: 000\.rain\.png to .* missing shard"):
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)


BUILDER = """
import sys
from derain.data.loading import cache_builder
from derain.data.loading.cache import open_pixels
from derain.data.prepared.manifest import open_prepared
write, written = cache_builder.write_at, []
def write_some(out, offset, image):
    write(out, offset, image)
    written.append(offset)
    if len(written) == 7:
        print("half", flush=True)
        sys.stdin.read()
cache_builder.write_at = write_some
open_pixels(open_prepared(sys.argv[1]), folder=sys.argv[2], budget_gib=1)
"""


def test_a_killed_builder_leaves_nothing_that_looks_complete(
    dataset: Prepared, tmp_path: Path
) -> None:
    place = tmp_path / "c"
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(dataset.folder), str(place)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert builder.stdout is not None
    assert builder.stdout.readline() == "half\n"
    builder.kill()
    builder.communicate()
    assert list(place.glob("*.tmp*"))
    assert not list(place.glob("*.rgb"))
    pixels = open_pixels(dataset, folder=place, budget_gib=1)
    tars = TarPixels(dataset)
    assert all(np.array_equal(pixels[sample], tars[sample]) for sample in range(len(dataset)))
    assert not list(place.glob("*.tmp*"))


def test_building_another_cache_removes_the_leftovers_of_a_killed_builder(
    dataset: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "abc.rgb.tmp").write_bytes(b"half")
    open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    assert not list((tmp_path / "c").glob("*.tmp*"))


@pytest.mark.parametrize("at_once", [False, True])
def test_a_full_disk_is_an_error_with_advice_and_leaves_nothing(
    dataset: Prepared, tmp_path: Path, at_once: bool
) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # 13 pairs take 99,840 bytes
    try:
        with pytest.raises(DerainError, match=r"no room for a cache .* data\.cache_dir"):
            open_pixels(dataset, folder=tmp_path / "c", budget_gib=1, at_once=at_once)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "c").glob("*.rgb*"))
    assert isinstance(open_pixels(dataset, folder=tmp_path / "c", budget_gib=1), MappedPixels)


def test_a_cache_in_use_is_kept_and_so_is_the_budget(
    paired_folder: PairedFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (
        write_dataset(paired_folder(count, name=f"s{count}"), tmp_path / f"p{count}")
        for count in (5, 6)
    )
    gib = 6 * 2 * 40 * 32 * 3 / 2**30
    used = open_pixels(first, folder=tmp_path / "c", budget_gib=gib)
    assert isinstance(open_pixels(second, folder=tmp_path / "c", budget_gib=gib), TarPixels)
    assert "caches in use" in caplog.text
    del used
    assert isinstance(open_pixels(second, folder=tmp_path / "c", budget_gib=gib), MappedPixels)
    assert len(list((tmp_path / "c").glob("*.rgb"))) == 1


def test_unfinished_and_foreign_folders_are_refused(dataset: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such prepared dataset"):
        open_prepared(tmp_path / "none")
    (dataset.folder / "index.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"index\.parquet: damaged: expected sha256"):
        open_prepared(dataset.folder)
    (dataset.folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="not a finished prepared dataset"):
        open_prepared(dataset.folder)


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


PROGRESSIVE = (
    Stage(from_step=0, crop_px=16, batch_size=5),
    Stage(from_step=3, crop_px=24, batch_size=3),
    Stage(from_step=9, crop_px=32, batch_size=1),
)


def test_stages_change_crops_and_batches_and_lose_no_sample(dataset: Prepared) -> None:
    batches = take(loader(dataset, *PROGRESSIVE).batch, Position(), 9 + 26 - 15 - 3 * 3 + 26)
    shapes = [batch.rain.shape for batch in batches]
    assert shapes[:3] == [(5, 16, 16, 3)] * 3
    # 15 of 26 samples are done when the second stage begins, and 11 are not 6 times 3
    assert [shape[:2] for shape in shapes[3:9]] == [(3, 24)] * 3 + [(2, 24)] + [(3, 24)] * 2
    assert set(shapes[9:]) == {(1, 32, 32, 3)}
    ids = np.concatenate([batch.ids for batch in batches]).tolist()
    assert sorted(ids[:26]) == sorted(ids[26:52]) == list(range(26))


def test_only_images_that_are_used_are_decoded(dataset: Prepared) -> None:
    class Counted(TarPixels):
        decoded = 0

        def __getitem__(self, sample: int) -> np.ndarray:
            self.decoded += 1
            return super().__getitem__(sample)

    pixels = Counted(dataset)
    whole = Loader([pixels], Recipe((len(dataset),), seed=0), PROGRESSIVE)
    batches = take(whole.batch, Position(), 20)
    assert pixels.decoded == sum(len(batch.ids) for batch in batches)


def test_a_sample_that_a_mix_repeats_is_cropped_elsewhere_each_time(dataset: Prepared) -> None:
    mixed = loader(dataset, mix=(3, 1))
    crops: dict[int, list[bytes]] = {}
    for batch in epoch(mixed, Position()):
        for sample, rain in zip(batch.ids.tolist(), batch.rain, strict=True):
            crops.setdefault(sample, []).append(rain.tobytes())
    repeated = [rains for rains in crops.values() if len(rains) > 1]
    assert len(repeated) >= 6  # 19 or 20 of 26 places for 13 samples
    assert all(len(set(rains)) == len(rains) for rains in repeated)


@pytest.fixture
def labelled(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    source = paired_folder(24)
    names = [f"{number:03d}.png" for number in range(24)]
    labels = {
        name: {"density": ("light", "moderate", "heavy")[min(n // 6, 2)]}
        for n, name in enumerate(names)
    }
    (source / "labels.json").write_text(json.dumps(labels))
    return write_dataset(source, tmp_path / "labelled")


def config_of(dataset: Prepared, **data: Any) -> Config:
    data = {"train": [str(dataset.folder)], "validation": [str(dataset.folder)], **data}
    train = {"steps": 9, "batch_size": 4, "crop_px": 16}
    return Config.model_validate(
        {"name": "x", "model": {"name": "prenet"}, "data": data, "train": train}
    )


def test_every_batch_has_its_share_of_each_density(labelled: Prepared) -> None:
    density = labelled.labels("density")
    whole = open_loader(config_of(labelled, stratify="density"))
    for number in range(3):
        for batch in epoch(whole, Position(number)):
            found = sorted(density[sample] for sample in batch.ids)
            assert found == ["heavy", "heavy", "light", "moderate"]
    orders = {tuple(np.concatenate([b.ids for b in epoch(whole, Position(n))])) for n in range(3)}
    assert len(orders) == 3


def test_a_missing_label_is_named_with_the_existing_ones(labelled: Prepared) -> None:
    with pytest.raises(DataError, match=r"no label `fog`; its labels: density"):
        open_loader(config_of(labelled, stratify="fog"))


def test_without_shuffle_the_datasets_keep_their_order(dataset: Prepared) -> None:
    ids = [batch.ids for batch in epoch(loader(dataset, shuffle=False), Position(5))]
    assert np.concatenate(ids).tolist() == list(range(26))
