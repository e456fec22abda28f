"""A cache that fills in the order of use: who asks gets its images, and nothing is done twice."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._small import write_dataset
from derain.config.training import Stage
from derain.data.loading import filling
from derain.data.loading.cache import MappedPixels, PartPixels, Pixels, TarPixels, open_pixels
from derain.data.loading.caches import bytes_to_build, list_caches, remove
from derain.data.loading.filling import MISSING, FillingPixels
from derain.data.loading.loader import Loader, Position
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import prefetch
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from derain.storage import node
from tests.data.loading.batches import epoch, take
from tests.folders import PairedFolder

STAGES = (Stage(from_step=0, crop_px=16, batch_size=4),)


@pytest.fixture
def dataset(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    return write_dataset(paired_folder(13), tmp_path / "prepared")


def fill(dataset: Prepared, folder: Path) -> FillingPixels:
    pixels = open_pixels(dataset, folder=folder, budget_gib=1, at_once=True)
    assert isinstance(pixels, FillingPixels)
    return pixels


def loader(pixels: Pixels) -> Loader:
    return Loader([pixels], Recipe((len(pixels),), seed=3), STAGES)


def images_there(folder: Path) -> int:
    (done,) = folder.glob("*.done")
    return sum(byte != MISSING for byte in done.read_bytes())


def test_every_batch_is_that_of_a_warm_cache_and_one_epoch_completes_it(
    dataset: Prepared, tmp_path: Path
) -> None:
    warm = loader(open_pixels(dataset, folder=tmp_path / "warm", budget_gib=1))
    cold = loader(fill(dataset, tmp_path / "c"))
    for found, expected in zip(epoch(cold, Position()), epoch(warm, Position()), strict=True):
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.rain, expected.rain)
        assert np.array_equal(found.clean, expected.clean)
    assert isinstance(
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1, at_once=True), MappedPixels
    )
    names = {path.suffix: path.read_bytes() for path in (tmp_path / "c").glob("*.rgb*")}
    (expected,) = (tmp_path / "warm").glob("*.rgb")
    assert names == {".rgb": expected.read_bytes()}


def test_an_image_is_decoded_when_it_is_asked_for(dataset: Prepared, tmp_path: Path) -> None:
    pixels = fill(dataset, tmp_path / "c")
    assert images_there(tmp_path / "c") == 0
    assert np.array_equal(pixels[5], TarPixels(dataset)[5])
    assert images_there(tmp_path / "c") == 2
    for task in pixels.decode([5, 7, 8]):
        task.result()
    assert images_there(tmp_path / "c") == 6


def test_a_batch_decodes_the_two_after_it_meanwhile_and_no_more(
    dataset: Prepared, tmp_path: Path
) -> None:
    pixels = fill(dataset, tmp_path / "c")
    cold = loader(pixels)
    cold.batch(Position())
    for offset in (4, 8):
        for task in pixels.decode(cold.plan(Position(0, offset, 1)).ids.tolist()):
            task.result()
    assert images_there(tmp_path / "c") == 2 * 12


KILLED = """
import os, sys
from derain.data.loading.cache import open_pixels
from derain.data.prepared.manifest import open_prepared
pixels = open_pixels(open_prepared(sys.argv[1]), folder=sys.argv[2], budget_gib=1, at_once=True)
for sample in range(7):
    pixels[sample]
os.kill(os.getpid(), 9)
"""


def test_a_killed_fill_goes_on_where_it_was(dataset: Prepared, tmp_path: Path) -> None:
    place = tmp_path / "c"
    ended = subprocess.run([sys.executable, "-c", KILLED, dataset.folder, place], check=False)
    assert ended.returncode == -9
    pixels = fill(dataset, place)
    assert images_there(place) == 14
    for shard in dataset.folder.glob("*.tar"):  # what is there is not decoded again
        shard.rename(shard.with_suffix(".away"))
    assert pixels[6].shape == (2, 32, 40, 3)
    with pytest.raises(DataError, match=r"shard-000001\.tar: missing shard"):
        pixels[7]
    for shard in dataset.folder.glob("*.away"):
        shard.rename(shard.with_suffix(".tar"))
    tars = TarPixels(dataset)
    assert all(np.array_equal(pixels[at], tars[at]) for at in range(len(tars)))


def test_who_wants_all_of_it_decodes_the_rest(dataset: Prepared, tmp_path: Path) -> None:
    begun = fill(dataset, tmp_path / "c")
    first = begun[3].copy()
    whole = open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    assert isinstance(whole, MappedPixels)
    assert np.array_equal(whole[3], first)
    assert np.array_equal(begun[4], whole[4])
    assert not list((tmp_path / "c").glob(f"*{filling.FILLING}*"))


def test_a_loader_process_fills_the_cache(dataset: Prepared, tmp_path: Path) -> None:
    cold = loader(fill(dataset, tmp_path / "c"))
    warm = loader(open_pixels(dataset, folder=tmp_path / "warm", budget_gib=1))
    with prefetch(cold, 1) as batch_at:
        found = take(batch_at, Position(), 5)
    for batch, expected in zip(found, take(warm.batch, Position(), 5), strict=True):
        assert np.array_equal(batch.rain, expected.rain)
    again = open_pixels(dataset, folder=tmp_path / "c", budget_gib=1, at_once=True)
    assert isinstance(again, MappedPixels)  # not an image was missing


def test_a_process_that_comes_late_gets_the_finished_cache(
    dataset: Prepared, tmp_path: Path
) -> None:
    pixels = fill(dataset, tmp_path / "c")
    opened_there, arguments = pixels.__reduce__()
    assert isinstance(opened_there(*arguments), FillingPixels)
    pixels.decode_all()
    assert isinstance(opened_there(*arguments), MappedPixels)


def test_a_damaged_image_is_named_and_never_served(dataset: Prepared, tmp_path: Path) -> None:
    shard = dataset.folder / dataset.manifest.shards[1].name
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    pixels = fill(dataset, tmp_path / "c")
    at = dataset.column("rain_member").tolist().index("001.rain.png")
    message = rf"damaged: {shard.name}: 001\.rain\.png: content: expected sha256 \w+, found sha256"
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            loader(pixels).write_crops(*of_sample(loader(pixels), at))
    assert not pixels.is_complete


def of_sample(cold: Loader, sample: int) -> tuple:
    """The plan with a sample, and memory for its crops."""
    at = Position()
    while sample not in (plan := cold.plan(at)).ids:
        at = plan.following
    return plan, np.empty(plan.shape, np.uint8)


def test_pairs_that_cannot_be_decoded_are_replaced_as_in_a_warm_cache(
    spoiled_set: Prepared,
    tmp_path: Path,
) -> None:
    warm = open_pixels(spoiled_set, folder=tmp_path / "warm", budget_gib=1)
    cold = fill(spoiled_set, tmp_path / "c")
    late = fill(spoiled_set, tmp_path / "c")
    for at in (4, 1, 3, 0, 2):
        assert np.array_equal(cold[at], warm[at])
    assert cold.left_out == warm.left_out
    again = open_pixels(spoiled_set, folder=tmp_path / "c", budget_gib=1, at_once=True)
    assert isinstance(again, MappedPixels)
    assert again.left_out == warm.left_out
    assert np.array_equal(late[1], warm[2])
    assert set(late.left_out) == {1}


def test_a_part_fills_the_cache_of_the_whole(dataset: Prepared, tmp_path: Path) -> None:
    part = open_pixels(
        dataset.part(np.array([2, 5, 11])), folder=tmp_path / "c", budget_gib=1, at_once=True
    )
    assert isinstance(part, PartPixels)
    for task in part.decode([0, 2]):
        task.result()
    assert images_there(tmp_path / "c") == 4
    assert np.array_equal(part[1], TarPixels(dataset)[5])
    assert images_there(tmp_path / "c") == 6


def test_after_a_restart_of_the_machine_it_begins_anew(
    dataset: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows which of the bytes have reached the disk."""
    fill(dataset, tmp_path / "c")[3]
    boot = tmp_path / "boot_id"
    boot.write_text("another-boot\n")
    monkeypatch.setattr(node, "_BOOT", boot)
    (stale,) = list_caches(tmp_path / "c")
    assert stale.state == "unfinished"
    remove(stale.path)
    pixels = fill(dataset, tmp_path / "c")
    assert images_there(tmp_path / "c") == 0
    assert np.array_equal(pixels[3], TarPixels(dataset)[3])


def test_it_counts_as_a_cache(
    dataset: Prepared, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    pixels = fill(dataset, tmp_path / "c")
    (found,) = list_caches(tmp_path / "c")
    assert (found.state, found.bytes) == ("in use", 13 * 2 * 40 * 32 * 3)
    assert found.datasets == (str(dataset.folder),)
    assert bytes_to_build(dataset, tmp_path / "c", 1) == 0
    more = write_dataset(paired_folder(6, name="more"), tmp_path / "more-prepared")
    budget = 14 * 2 * 40 * 32 * 3 / 2**30
    assert isinstance(
        open_pixels(more, folder=tmp_path / "c", budget_gib=budget, at_once=True), TarPixels
    )
    del pixels
    states = {each.path: each.state for each in list_caches(tmp_path / "c")}
    assert states.pop(found.path) == "idle"
    assert {path.suffix for path in states} == {".places", ".members"}  # of the other one
    assert isinstance(
        open_pixels(more, folder=tmp_path / "c", budget_gib=budget, at_once=True), FillingPixels
    )
    assert len(list((tmp_path / "c").glob("*.done"))) == 1
