"""A dataset that does not fit as pixels: compressed if that fits, with the same bytes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks._small import write_dataset
from derain.config.training import Stage
from derain.data.loading.augment import crop
from derain.data.loading.cache import MappedPixels, Pixels, TarPixels, open_pixels
from derain.data.loading.cache_layout import cache_layout
from derain.data.loading.cache_notes import datasets_of
from derain.data.loading.caches import bytes_to_build, has_cache, list_caches, remove
from derain.data.loading.compressed.tile_file import begin_of_tiles
from derain.data.loading.compressed.tile_pixels import TilePixels, estimated_size, tile_layout
from derain.data.loading.compressed.tiles import encode
from derain.data.loading.loader import Loader, Position
from derain.data.loading.order import Recipe
from derain.data.loading.pixels import PartPixels
from derain.data.loading.prefetch import prefetch
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.sources.selection import Naming
from derain.data.synthetic.synthesis import bundled_photographs
from derain.errors import DataError
from derain.pipelines.prepare.verb import prepare
from derain.storage.files import locate
from tests.data.images.odd_images import spoiled
from tests.data.loading.batches import epoch, take
from tests.folders import PairedFolder, write_scenes
from tests.storage.faulty_store import FaultyStore

GIB = 2**30


def too_small(dataset: Prepared) -> float:
    """The budget in GiB that the decoded pixels exceed by one byte."""
    return (cache_layout(dataset).size - 1) / GIB


def estimate_of(dataset: Prepared, folder: Path) -> int:
    return estimated_size(dataset, cache_layout(dataset), tile_layout(dataset, folder / "x.rgb"))


def compressed(dataset: Prepared, folder: Path) -> TilePixels:
    pixels = open_pixels(dataset, folder=folder, budget_gib=too_small(dataset))
    assert isinstance(pixels, TilePixels)
    return pixels


def loader(pixels: Pixels, crop_px: int) -> Loader:
    stages = [Stage(from_step=0, crop_px=crop_px, batch_size=4)]
    return Loader([pixels], Recipe((len(pixels),), seed=3), stages)


def test_crops_are_those_of_decoded_pixels(odd_set: Prepared, tmp_path: Path) -> None:
    raw = open_pixels(odd_set, folder=tmp_path / "raw", budget_gib=1)
    pixels = compressed(odd_set, tmp_path / "c")
    assert type(raw) is MappedPixels
    rng = np.random.default_rng(0)
    almost = np.nextafter(1, 0)
    for sample in range(len(odd_set)):
        np.testing.assert_array_equal(pixels[sample], raw[sample])
        for crop_px in (1, 9, 20, 32, 64, 128):
            for top, left in ((0, 0), (almost, almost), (0, almost), *rng.random((4, 2))):
                expected = crop(raw[sample], top, left, crop_px)
                for cropped in (pixels, raw):
                    np.testing.assert_array_equal(
                        cropped.crop(sample, top, left, crop_px), expected
                    )


@pytest.mark.parametrize("crop_px", [16, 48])
def test_batches_are_those_of_decoded_pixels(
    odd_set: Prepared, tmp_path: Path, crop_px: int
) -> None:
    raw = open_pixels(odd_set, folder=tmp_path / "raw", budget_gib=1)
    expected = epoch(loader(raw, crop_px), Position())
    ours = loader(compressed(odd_set, tmp_path / "c"), crop_px)
    with prefetch(ours, 2) as batch_at:
        served = take(batch_at, Position(), len(expected))
    for found in (epoch(ours, Position()), served):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.rain, other.rain)
            np.testing.assert_array_equal(one.clean, other.clean)


def test_threads_share_it(odd_set: Prepared, tmp_path: Path) -> None:
    pixels = compressed(odd_set, tmp_path / "c")
    samples = [*range(len(odd_set))] * 20
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda sample: pixels.crop(sample, 0.3, 0.7, 48), samples)
    for sample, square in zip(samples, found, strict=True):
        np.testing.assert_array_equal(square, crop(pixels[sample], 0.3, 0.7, 48))


def test_it_is_built_from_a_store(
    object_store: FaultyStore, odd_set: Prepared, tmp_path: Path
) -> None:
    folder = locate("s3://rain/odd")
    for path in odd_set.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    object_store.errors, object_store.cuts = 0.1, 0.1
    far, near = compressed(open_prepared(folder), tmp_path / "far"), TarPixels(odd_set)
    for sample in range(len(odd_set)):
        np.testing.assert_array_equal(far[sample], near[sample])
    assert not list((tmp_path / "far").glob("*.tar"))


def test_a_part_has_the_crops_of_the_whole(odd_set: Prepared, tmp_path: Path) -> None:
    whole = compressed(odd_set, tmp_path / "c")
    part = odd_set.part(np.array([5, 0, 3]))
    pixels = open_pixels(part, folder=tmp_path / "c", budget_gib=too_small(odd_set))
    assert isinstance(pixels, PartPixels)
    for number, row in enumerate((5, 0, 3)):
        np.testing.assert_array_equal(
            pixels.crop(number, 0.5, 0.2, 32), whole.crop(row, 0.5, 0.2, 32)
        )


def test_the_budget_decides(
    odd_set: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size, folder = cache_layout(odd_set).size, tmp_path / "c"
    estimate = estimate_of(odd_set, tmp_path)
    assert estimate < size
    for budget, kind in (
        (0, TarPixels),
        (estimate - 1, TarPixels),
        (estimate, TilePixels),
        (size - 1, TilePixels),
    ):
        pixels = open_pixels(odd_set, folder=folder, budget_gib=budget / GIB, at_once=True)
        assert type(pixels) is kind
    assert f"about {estimate / GIB:.2f} GiB compressed, the budget is" in caplog.text
    pixels = open_pixels(odd_set, folder=tmp_path / "raw", budget_gib=size / GIB)
    assert type(pixels) is MappedPixels


def test_noise_that_does_not_compress_is_decoded_from_the_tars(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    dataset = write_dataset(paired_folder(5), tmp_path / "prepared")
    pixels = open_pixels(dataset, folder=tmp_path / "c", budget_gib=too_small(dataset))
    assert isinstance(pixels, TarPixels)
    assert not list((tmp_path / "c").glob("*.rgb*"))


def test_the_estimate_is_that_of_the_file(odd_set: Prepared, tmp_path: Path) -> None:
    """Of fewer than 32 pairs all are measured; a tenth is added."""
    compressed(odd_set, tmp_path / "c")
    (file,) = (tmp_path / "c").glob("*.tiles.rgb")
    assert 1.05 < estimate_of(odd_set, tmp_path) / file.stat().st_size < 1.15


def test_it_is_listed_kept_while_in_use_and_removed_for_another(
    odd_set: Prepared, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    folder, budget = tmp_path / "c", too_small(odd_set)
    assert bytes_to_build(odd_set, folder, budget) == estimate_of(odd_set, tmp_path)
    assert bytes_to_build(odd_set, folder, 0) == 0
    assert not has_cache(odd_set, folder)
    pixels = compressed(odd_set, folder)
    assert has_cache(odd_set, folder)
    assert bytes_to_build(odd_set, folder, budget) == 0
    (cache,) = list_caches(folder)
    assert (cache.state, cache.datasets) == ("in use", (str(odd_set.folder),))
    assert remove(cache.path) == 0
    other = write_dataset(paired_folder(4), tmp_path / "other")
    small = cache_layout(other).size / GIB
    assert isinstance(open_pixels(other, folder=folder, budget_gib=small), TarPixels)
    del pixels
    assert {each.path: each.state for each in list_caches(folder)}[cache.path] == "idle"
    assert type(open_pixels(other, folder=folder, budget_gib=small)) is MappedPixels
    assert not cache.path.exists()
    assert not datasets_of(cache.path)


def test_a_file_that_was_cut_is_built_again(odd_set: Prepared, tmp_path: Path) -> None:
    compressed(odd_set, tmp_path / "c")
    (file,) = (tmp_path / "c").glob("*.tiles.rgb")
    size = file.stat().st_size
    with file.open("r+b") as out:
        out.truncate(size - 100)
    pixels = compressed(odd_set, tmp_path / "c")
    assert file.stat().st_size == size
    np.testing.assert_array_equal(pixels[2], TarPixels(odd_set)[2])


def test_a_changed_byte_is_an_error_that_names_the_file(odd_set: Prepared, tmp_path: Path) -> None:
    compressed(odd_set, tmp_path / "c")
    (file,) = (tmp_path / "c").glob("*.tiles.rgb")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    pixels = compressed(odd_set, tmp_path / "c")
    with pytest.raises(DataError, match=r"tiles\.rgb: damaged.*Remove this file"):
        epoch(loader(pixels, 128), Position())


def test_what_a_killed_builder_left_is_removed(odd_set: Prepared, tmp_path: Path) -> None:
    left = tmp_path / "c" / f"{odd_set.manifest.sha256()}.tiles.rgb.tmp4711"
    left.parent.mkdir()
    left.write_bytes(b"half")
    assert [cache.state for cache in list_caches(left.parent)] == ["unfinished"]
    compressed(odd_set, tmp_path / "c")
    assert not left.exists()


def test_a_damaged_shard_is_refused(odd_set: Prepared, tmp_path: Path) -> None:
    (path, *_) = odd_set.folder.glob("*.tar")
    data = bytearray(path.read_bytes())
    row = next(row for row in odd_set.index.to_pylist() if row["shard"] == path.name)
    data[row["clean_offset"] + row["clean_length"] - 6] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        compressed(open_prepared(odd_set.folder), tmp_path / "c")
    assert not list((tmp_path / "c").glob("*.rgb*"))


@pytest.mark.usefixtures("odd_set")
def test_pairs_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    for name in ("rain/1.png", "clean/4.png"):
        path = tmp_path / "odd" / name
        path.write_bytes(spoiled(path.read_bytes()))
    dataset = write_dataset(tmp_path / "odd", tmp_path / "spoiled", shards=1)
    raw = open_pixels(dataset, folder=tmp_path / "raw", budget_gib=1)
    compressed(dataset, tmp_path / "c")
    pixels = compressed(dataset, tmp_path / "c")
    assert pixels.left_out == raw.left_out
    assert set(pixels.left_out) == {1, 4}
    for sample in range(len(dataset)):
        np.testing.assert_array_equal(pixels[sample], raw[sample])
    part = PartPixels(pixels, dataset.part(np.array([0, 1, 3])))
    np.testing.assert_array_equal(part.crop(1, 0, 0, 48), raw[3][:, :48, :48])


@pytest.mark.usefixtures("ray_cluster")
def test_a_clean_image_of_several_pairs_is_there_once(tmp_path: Path) -> None:
    source = write_scenes(tmp_path / "scenes", 2, 3, width=70, height=40)
    with Image.open(bundled_photographs() / "stream.jpg") as image:
        for number, path in enumerate(sorted(source.rglob("*.jpg"))):
            image.convert("RGB").crop((number, 0, number + 70, 40)).save(path)
    naming = Naming("rainy_image/{scene:d}_{n:d}", "ground_truth/{scene:d}")
    done = prepare("paired", source, tmp_path / "prepared", naming=naming, clean_once=True)
    dataset = open_prepared(done.folder)
    pixels, raw = compressed(dataset, tmp_path / "c"), TarPixels(dataset)
    assert len(dataset) == 6
    for sample in range(6):
        np.testing.assert_array_equal(pixels[sample], raw[sample])
    (file,) = (tmp_path / "c").glob("*.tiles.rgb")
    cleans = [encode(raw[sample][1]) for sample in (0, 3)]
    rains = [encode(*raw[sample]) for sample in range(6)]
    tiles = [tile for image in (*cleans, *rains) for tile in image]
    assert file.stat().st_size == begin_of_tiles(len(tiles)) + sum(map(len, tiles))
