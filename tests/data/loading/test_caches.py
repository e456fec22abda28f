"""What the caches of a node hold: of which dataset, how large, in use or not."""

import os
import shutil
from pathlib import Path

import pytest

from benchmarks._small import write_dataset
from derain.data.loading.cache import TarPixels, open_pixels
from derain.data.loading.cache_layout import cache_layout, kept_layout, places_path
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


def test_what_is_kept_of_a_dataset_without_a_cache_can_go(
    dataset: Prepared, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    """The places of its images, which were looked up for their size, and those in its shards."""
    folder = tmp_path / "caches"
    tars = open_pixels(dataset, folder=folder, budget_gib=1 / 2**30)
    assert isinstance(tars, TarPixels)
    assert tars[0].shape == (2, 32, 40, 3)
    found = {cache.path.name.partition(".")[2]: cache for cache in list_caches(folder)}
    assert {suffix: cache.state for suffix, cache in found.items()} == {
        "places": "idle",
        "tiles.places": "idle",
        "members": "in use",
    }
    assert remove(found["members"].path) == 0
    assert remove(found["places"].path) == found["places"].bytes == 64 + 24 * 3
    other = write_dataset(paired_folder(4, name="other"), tmp_path / "other-prepared")
    open_pixels(other, folder=folder, budget_gib=1)
    stem = dataset.manifest.sha256()
    assert [path.name for path in folder.glob(f"{stem}*")] == [f"{stem}.members"]
    del tars
    (cache,) = folder.glob("*.rgb")
    remove(cache)
    (members,) = list_caches(folder)
    assert members.state == "idle"
    remove(members.path)
    assert all(path.name.endswith(".lock") for path in folder.iterdir())


def test_without_a_budget_nothing_is_kept(dataset: Prepared, tmp_path: Path) -> None:
    tars = open_pixels(dataset, folder=tmp_path / "caches", budget_gib=0)
    assert tars[0].shape == (2, 32, 40, 3)
    assert not (tmp_path / "caches").exists()


def test_places_that_are_in_use_stay(dataset: Prepared, tmp_path: Path) -> None:
    """Between looking them up and the first byte of a cache; its loader processes map them too."""
    cache = tmp_path / f"{dataset.manifest.sha256()}.rgb"
    layout = kept_layout(dataset, cache)
    assert [found.state for found in list_caches(tmp_path)] == ["in use"]
    assert remove(places_path(cache)) == 0
    places = layout.places
    del layout
    assert remove(places_path(cache)) == 0
    del places
    assert remove(places_path(cache)) > 0


def test_what_is_no_file_is_no_cache(tmp_path: Path) -> None:
    digest = "a" * 64
    os.mkfifo(tmp_path / f"{digest}.rgb")  # to open it would wait for a writer
    (tmp_path / f"{'b' * 64}.rgb").mkdir()
    (tmp_path / f"{'c' * 64}.rgb").symlink_to(f"{'c' * 64}.rgb")
    assert list_caches(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    ["[", "[]", '{"folders": 5}', '{"folders": [1, null]}', '{"folders": "abc"}', "[" * 9**5],
)
def test_a_damaged_note_names_no_folder(tmp_path: Path, text: str) -> None:
    cache = tmp_path / f"{'a' * 64}.rgb"
    cache.touch()
    cache.with_suffix(".dataset.json").write_text(text)
    (listed,) = list_caches(tmp_path)
    assert (listed.datasets, listed.state) == ((), "idle")


def test_a_folder_that_nobody_can_have_is_gone(tmp_path: Path) -> None:
    cache = tmp_path / f"{'a' * 64}.rgb"
    cache.touch()
    cache.with_suffix(".dataset.json").write_text('{"folders": ["~no-such-user/x"]}')
    assert [listed.state for listed in list_caches(tmp_path)] == ["gone"]
