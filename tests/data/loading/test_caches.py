"""What the caches of a node hold: of which dataset, how large, in use or not."""

import shutil
from pathlib import Path

import pytest

from benchmarks._small import write_dataset
from derain.data.loading.cache import open_pixels
from derain.data.loading.cache_layout import cache_layout, places_path
from derain.data.loading.cache_notes import datasets_of
from derain.data.loading.caches import list_caches, remove
from derain.data.prepared.manifest import Prepared, open_prepared
from tests.folders import PairedFolder


@pytest.fixture
def dataset(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    return write_dataset(paired_folder(3), tmp_path / "prepared")


def test_a_cache_knows_all_folders_of_its_dataset(dataset: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    assert list_caches(folder) == []
    shutil.copytree(dataset.folder, tmp_path / "copy")
    pixels = open_pixels(dataset, folder=folder, budget_gib=1)
    (cache,) = list_caches(folder)
    assert (cache.datasets, cache.state) == ((str(dataset.folder),), "in use")
    assert cache.bytes == cache_layout(dataset).size
    assert remove(cache.path) == 0
    del pixels
    open_pixels(open_prepared(tmp_path / "copy"), folder=folder, budget_gib=1)
    assert datasets_of(cache.path) == [str(dataset.folder), str(tmp_path / "copy")]
    shutil.rmtree(dataset.folder)
    assert [cache.state for cache in list_caches(folder)] == ["idle"]  # the copy is still there
    (tmp_path / "copy/manifest.json").write_text("{}")  # prepared anew
    assert [cache.state for cache in list_caches(folder)] == ["gone"]
    assert remove(cache.path) == cache.bytes
    assert list_caches(folder) == []
    assert all(path.name.endswith(".lock") for path in folder.iterdir())


def test_a_layout_stays_as_long_as_a_cache_of_its_dataset(
    dataset: Prepared, tmp_path: Path
) -> None:
    """Whose processes map it again: those of a cache that fills, of a boot before this one."""
    folder = tmp_path / "caches"
    open_pixels(dataset, folder=folder, budget_gib=1)
    (cache,) = folder.glob("*.rgb")
    earlier = cache.with_name(f"{cache.name}.filling-earlier-0")
    earlier.write_bytes(b"x")
    assert remove(earlier) == 1
    assert places_path(cache).exists()
    earlier.write_bytes(b"x")
    remove(cache)
    assert places_path(cache).exists()
    remove(earlier)
    assert not places_path(cache).exists()


def test_what_a_killed_builder_left_is_unfinished(tmp_path: Path) -> None:
    left = tmp_path / "0123.rgb.tmp4711"
    left.write_bytes(b"x" * 5)
    (cache,) = list_caches(tmp_path)
    assert (cache.bytes, cache.state, cache.datasets) == (5, "unfinished", ())
    assert remove(left) == 5
