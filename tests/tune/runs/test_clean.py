"""`runs clean` frees what nobody needs, and never what counts."""

import os
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks._small import write_dataset
from derain.data.loading.cache import open_pixels
from derain.training import checkpoint
from derain.tune.journal import Journal
from derain.tune.runs.clean import STALE_S, removable, removable_caches, remove
from tests.folders import PairedFolder
from tests.tune.runs import made


def names(items: list) -> list[str]:
    return [item.path.name for item in items]


def test_older_checkpoints_of_a_finished_run_go_and_those_that_count_stay(tmp_path: Path) -> None:
    folder, none = made.run(tmp_path), tmp_path / "no caches"
    assert removable([tmp_path], none) == []  # a stopped run may need any of them
    made.finish(folder, chosen=2)
    items = removable([tmp_path], none)
    assert names(items) == ["step-00000001", "step-00000003"]
    assert all(item.bytes > 100 for item in items)
    assert remove(items) == items
    assert checkpoint.steps(folder) == [2, 4]
    assert removable([tmp_path], none) == []


def test_what_another_run_starts_from_stays(tmp_path: Path) -> None:
    folder = made.run(tmp_path)
    made.finish(folder)
    other = made.run(tmp_path, "other")
    start = str(checkpoint.folder_of(folder, 2))
    (other / checkpoint.CONFIG).write_text(made.config_of(tmp_path, start_from=start).to_yaml())
    assert names(removable([tmp_path], tmp_path / "no")) == ["step-00000001", "step-00000003"]


def test_nothing_goes_of_a_run_that_trains_again_or_of_an_unfinished_sweep(tmp_path: Path) -> None:
    folder = made.run(tmp_path)
    made.finish(folder)
    items = removable([tmp_path], tmp_path / "no")
    with checkpoint.command_lock(folder):
        assert removable([tmp_path], tmp_path / "no") == []
        assert remove(items) == []
    assert checkpoint.steps(folder) == [1, 2, 3, 4]
    shutil.rmtree(folder)
    sweep = made.sweep(tmp_path, "low", planned={"low": 1e-4, "high": 1e-3})
    made.finish(sweep / "low")
    made.end(sweep, "low", "finished")
    assert removable([tmp_path], tmp_path / "no") == []
    (sweep / "sweep.json").write_text('{"best": "low", "trials": []}')
    assert len(removable([tmp_path], tmp_path / "no")) == 3
    with Journal.open(sweep):
        assert removable([tmp_path], tmp_path / "no") == []


def test_leftovers_go_once_nobody_has_written_to_them_for_an_hour(tmp_path: Path) -> None:
    torn = tmp_path / "data/.model.onnx.0123abcd.tmp"
    unfinished = tmp_path / "data/train"
    (unfinished / ".parts").mkdir(parents=True)
    torn.write_bytes(b"x" * 10)
    (unfinished / "a.tar").write_bytes(b"y" * 20)
    assert removable([tmp_path], tmp_path / "no") == []
    for path in (torn, unfinished, *unfinished.rglob("*")):
        os.utime(path, times=(time.time() - 2 * STALE_S,) * 2)
    items = removable([tmp_path], tmp_path / "no")
    assert {(item.path.name, item.bytes) for item in items} == {(torn.name, 10), ("train", 20)}
    assert remove(items) == items
    assert not torn.exists()
    assert not unfinished.exists()


def test_the_cache_of_a_dataset_that_is_gone_goes(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    dataset, folder = write_dataset(paired_folder(3), tmp_path / "prepared"), tmp_path / "caches"
    pixels = open_pixels(dataset, folder=folder, budget_gib=1)
    assert np.asarray(pixels[0]).shape[0] == 2
    assert removable_caches(folder) == []
    shutil.rmtree(dataset.folder)
    assert removable_caches(folder) == []  # it is in use
    del pixels
    (item,) = removable_caches(folder)
    assert str(dataset.folder) in item.why
    assert remove([item]) == [item]
    assert all(path.name.endswith(".lock") for path in folder.iterdir())
