"""With `clean_once` a clean image is stored once for all of its rainy images; all else is equal."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import ray.data
import webdataset

from derain.config import Config
from derain.data.loading.loader import Position, open_loader
from derain.data.prepared.manifest import MANIFEST, open_prepared
from derain.pipelines.leaks.verb import leaks
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from tests.folders import write_scenes
from tests.pipelines.prepare.unfinished import index_cannot_be_written
from tests.processes import wait_for

SCENES, RAINS, WIDTH, HEIGHT = 5, 3, 300, 200


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:  # noqa: ARG001
    """`source`, prepared with each clean image stored `once`, or once for `each` rainy image."""
    folder = tmp_path_factory.mktemp("clean_once")
    write_scenes(folder / "source", SCENES, RAINS, width=WIDTH, height=HEIGHT)
    prepare("rain14000", folder / "source", folder / "each", shard_mib=1)
    prepare("rain14000", folder / "source", folder / "once", shard_mib=1, clean_once=True)
    return folder


def batches(prepared: Path, cache: Path, budget_gib: float) -> list[tuple[Any, ...]]:
    data = {"train": [str(prepared)], "validation": [str(prepared)], "cache_dir": str(cache)}
    train = {"steps": 9, "batch_size": 4, "crop_px": 64}
    tree = {"name": "x", "model": {"name": "prenet"}, "train": train}
    loader = open_loader(Config.model_validate({**tree, "data": {**data, "cache_gib": budget_gib}}))
    found, at = [], Position()
    while at.epoch < 2:
        batch = loader.batch(at)
        found.append((batch.ids.tolist(), batch.rain, batch.clean))
        at = batch.following
    return found


@pytest.mark.parametrize("budget_gib", [1, 0], ids=["cache", "tars"])
def test_the_batches_are_equal(place: Path, tmp_path: Path, budget_gib: float) -> None:
    each = batches(place / "each", tmp_path / "each", budget_gib)
    once = batches(place / "once", tmp_path / "once", budget_gib)
    assert len(each) == len(once) > 6
    for one, other in zip(each, once, strict=True):
        assert one[0] == other[0]
        assert all(np.array_equal(one[side], other[side]) for side in (1, 2))
    if budget_gib:  # what was used is all there is; a thread gives the caches their names
        wait_for(lambda: len(list(tmp_path.glob("*/*.rgb"))) == 2, 30)
        sizes = [next((tmp_path / name).glob("*.rgb")).stat().st_size for name in ("each", "once")]
        image = HEIGHT * WIDTH * 3
        assert sizes == [2 * SCENES * RAINS * image, SCENES * (RAINS + 1) * image]


def test_only_positions_in_the_index_differ(place: Path) -> None:
    each, once = open_prepared(place / "each"), open_prepared(place / "once")
    same = [name for name in each.index.column_names if name.endswith(("key", "source", "labels"))]
    assert each.index.select(same) == once.index.select(same)
    assert each.column("clean_sha256").tolist() == once.column("clean_sha256").tolist()
    assert once.manifest.settings == {**each.manifest.settings, "clean_once": True}
    clean = sum(path.stat().st_size for path in (place / "source/ground_truth").iterdir())
    saved = each.manifest.bytes - once.manifest.bytes
    assert saved > (RAINS - 1) * clean  # plus headers and JSON members


def test_other_readers_find_the_bytes_of_the_source(place: Path, tmp_path: Path) -> None:
    source, tars = place / "source", sorted(str(path) for path in (place / "once").glob("*.tar"))
    names = {"clean.jpg": "ground_truth/{}.jpg"}
    names |= {f"rain-{n:02d}.jpg": f"rainy_image/{{}}_{n}.jpg" for n in range(1, RAINS + 1)}
    expected = {
        (str(scene), field): (source / name.format(scene)).read_bytes()
        for scene in range(1, SCENES + 1)
        for field, name in names.items()
    }
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert {(it["__key__"], field): it[field] for it in samples for field in names} == expected
    rows = ray.data.read_webdataset(tars, decoder=None).take_all()
    assert {(it["__key__"], field): it[field] for it in rows for field in names} == expected
    table = datasets.load_dataset(
        "webdataset", data_files={"train": tars}, split="train", cache_dir=str(tmp_path / "hf")
    )
    for field in names:
        table = table.cast_column(field, datasets.Image(decode=False))
    read = {(it["__key__"], field): it[field]["bytes"] for it in table for field in names}
    assert read == expected


def test_verify_resuming_and_leaks_work(place: Path, tmp_path: Path) -> None:
    once, broken = place / "once", tmp_path / "broken"
    with index_cannot_be_written(broken):
        prepare("rain14000", place / "source", broken, shard_mib=1, clean_once=True)
    sorted(broken.glob("*.tar"))[1].unlink()
    prepare("rain14000", place / "source", broken, shard_mib=1, clean_once=True)
    for path in once.iterdir():
        assert (broken / path.name).read_bytes() == path.read_bytes()
    assert verify(once).ok
    found = leaks(once, place / "each")
    assert (found.train_pictures, len(found.matches)) == (SCENES, SCENES)
    assert found.leaked_train_pairs == SCENES * RAINS
    assert json.loads((once / MANIFEST).read_text())["pairs"] == SCENES * RAINS
