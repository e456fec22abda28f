"""The limits of a shard hold for what is written, also if images are stored in another format."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.data.images.decode import read_image
from derain.data.images.kinds import is_image
from derain.data.prepared.manifest import open_prepared
from derain.data.prepared.shards import write_shards
from derain.data.sources.selection import Naming
from derain.data.synthetic.synthesis import bundled_photographs
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.plan import make_plan
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from tests.folders import PairedFolder, digests, noise_image, write_scenes
from tests.pipelines.prepare.unfinished import index_cannot_be_written

MIB = 2**20
HALVES = Naming("{n:d}.jpg", clean_half="left")


def side_by_side(folder: Path, count: int, quality: int) -> Path:
    """JPEGs of noise: of quality 5, their PNGs are 23 times larger."""
    folder.mkdir()
    for number in range(count):
        image = noise_image(number, width=800, height=400)
        image.save(folder / f"{number}.jpg", quality=quality)
    return folder


@pytest.mark.usefixtures("ray_cluster")
def test_a_part_that_grows_more_than_estimated_becomes_several_shards(tmp_path: Path) -> None:
    source, out, broken = side_by_side(tmp_path / "source", 10, 5), tmp_path / "a", tmp_path / "b"
    options = PrepareOptions(shard_mib=1, naming=HALVES)
    plan, _ = make_plan("paired", source, out, options)
    assert len(plan) == 3
    done = prepare("paired", source, out, options)
    tars = sorted(out.glob("*.tar"))
    assert [int(path.stem[-6:]) for path in tars] == [0, 1, 2, 3, 4]
    assert max(path.stat().st_size for path in tars) <= MIB
    assert [entry.pairs for entry in open_prepared(out).manifest.shards] == [2] * 5
    assert open_prepared(out).column("rain_source").tolist() == [f"{n}.jpg" for n in range(10)]
    assert done.shards == 5
    assert verify(out).problems == []

    with index_cannot_be_written(broken):
        prepare("paired", source, broken, options)
    next(broken.glob("*-000001-01.tar")).unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in broken.glob("*-000000*.tar")}
    prepare("paired", source, broken, options)
    assert digests(broken) == digests(out)
    written = [path.stat().st_mtime_ns for path in sorted(broken.glob("*.tar"))]
    assert written[:2] == [kept[name] for name in sorted(kept, key=len)]


@pytest.mark.usefixtures("ray_cluster")
def test_a_sample_larger_than_the_limit_has_a_shard_of_its_own(tmp_path: Path) -> None:
    source, out = side_by_side(tmp_path / "source", 4, 90), tmp_path / "out"
    image = noise_image(9, width=1600, height=800)
    image.save(source / "1.jpg", quality=90)
    done = prepare("paired", source, out, shard_mib=1, naming=HALVES)
    sizes = [path.stat().st_size for path in sorted(out.glob("*.tar"))]
    assert [size > MIB for size in sizes] == [False, True, False, False][: done.shards]
    assert verify(out).ok


@pytest.mark.parametrize("quality", [75, 95])
def test_the_estimate_is_large_enough_for_photographs(tmp_path: Path, quality: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, path in enumerate(sorted(filter(is_image, bundled_photographs().iterdir()))):
        pixels = read_image(path)
        image = Image.fromarray(np.hstack([pixels, pixels]))
        image.save(source / f"{number}.jpg", quality=quality)
    plan, lines = make_plan("paired", source, source, PrepareOptions(shard_mib=1, naming=HALVES))
    shards = [
        write_shards(plan.pairs_of(lines, n), source, tmp_path / f"{n}.tar", limits=plan.limits)
        for n in range(len(plan))
    ]
    assert [len(shard.entries) for shard in shards] == [1] * len(plan)
    assert len(plan) > 1


def test_pairs_per_shard_is_a_limit_beside_the_size(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(7)
    three = PrepareOptions(pairs_per_shard=3)
    plan, lines = make_plan("paired", source, source, three)
    assert [len(plan.pairs_of(lines, number)) for number in range(len(plan))] == [3, 3, 1]
    assert plan.prefix != make_plan("paired", source, source, PrepareOptions())[0].prefix
    scenes = write_scenes(tmp_path / "scenes", scenes=3, rains=2, width=24, height=16)
    plan, lines = make_plan("rain14000", scenes, scenes, replace(three, clean_once=True))
    assert [len(plan.pairs_of(lines, number)) for number in range(len(plan))] == [2, 2, 2]


@pytest.mark.usefixtures("ray_cluster")
def test_pairs_per_shard_gives_every_loader_a_shard(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source, out = paired_folder(7), tmp_path / "out"
    assert prepare("paired", source, out, pairs_per_shard=2).shards == 4
    manifest = open_prepared(out).manifest
    assert [entry.pairs for entry in manifest.shards] == [2, 2, 2, 1]
    assert manifest.settings["pairs_per_shard"] == 2
    assert prepare("paired", source, out, pairs_per_shard=2).reused


@pytest.mark.parametrize(("orientation", "parts"), [(1, 1), (3, 2)])
def test_images_that_are_converted_are_planned_as_png(
    tmp_path: Path, orientation: int, parts: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for side in ("rain", "clean"):
        (tmp_path / "source" / side).mkdir(parents=True)
        for number in range(4):
            image = noise_image(number, side == "rain", width=300, height=200)
            image.save(tmp_path / "source" / side / f"{number}.jpg", quality=50, exif=exif)
    options = PrepareOptions(shard_mib=1, convert=True)
    plan, _ = make_plan("paired", tmp_path / "source", tmp_path / "out", options)
    assert len(plan) == parts
