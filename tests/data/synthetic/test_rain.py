"""Rain is reproducible, does more damage if denser, has the drawn angle, and is written whole."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, sobel

from derain.data.images.convert import read_odd
from derain.data.images.decode import read_image
from derain.data.images.kinds import is_image
from derain.data.sources.discover import find_pairs
from derain.data.synthetic.rain import render
from derain.data.synthetic.synthesis import bundled_photographs, synthesize
from derain.errors import DataError, OccupiedError, UsageError
from tests.data.images.odd_images import VARIANTS
from tests.folders import digests

PHOTOGRAPHS = sorted(path for path in bundled_photographs().iterdir() if is_image(path))


def photograph(name: str, size_px: int = 256) -> np.ndarray:
    return read_image(bundled_photographs() / f"{name}.jpg")[:size_px, :size_px]


def psnr(clean: np.ndarray, rain: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((clean / 255.0 - rain / 255.0) ** 2)))


def measured_angle_deg(streaks: np.ndarray) -> float:
    """Angle from the vertical by the structure tensor: minus the gradient's main orientation."""
    smooth = gaussian_filter(streaks.astype(float), 1.0)
    dx, dy = sobel(smooth, axis=1), sobel(smooth, axis=0)
    orientation = 0.5 * np.arctan2(2 * np.sum(dx * dy), np.sum(dx * dx) - np.sum(dy * dy))
    return float(-np.degrees(orientation))


@pytest.fixture
def clean_dir(tmp_path: Path) -> Path:
    """Five 48 x 40 images whose pixels are their coordinates: red is x, green is y."""
    folder = tmp_path / "clean"
    folder.mkdir()
    y, x = np.mgrid[:40, :48]
    for index in range(5):
        pixels = np.stack([x, y, np.full_like(x, 10 * index)], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"scene{index}.png")
    return folder


# -- the image ---------------------------------------------------------------------------------


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    synthesize(None, here, count=3, seed=11, density="mixed", size_px=64)
    code = (
        "import sys, pathlib; from derain.data.synthetic.synthesis import synthesize; "
        "synthesize(None, pathlib.Path(sys.argv[1]), count=3, seed=11, density='mixed', size_px=64)"
    )
    subprocess.run([sys.executable, "-c", code, str(there)], check=True)
    assert digests(here) == digests(there)
    assert len(digests(here)) == 7


def test_render_depends_on_the_seed_and_leaves_the_clean_image_alone() -> None:
    clean = photograph("stream")
    before = clean.copy()
    first, again, other = (render(clean, "moderate", seed) for seed in (1, 1, 2))
    assert np.array_equal(first.rain, again.rain)
    assert not np.array_equal(first.rain, other.rain)
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("seed", range(8))
def test_light_rain_follows_the_blending_formula(seed: int) -> None:
    clean = photograph("meadow", 128)
    rendering = render(clean, "light", seed)
    scene, streaks = clean / 255.0, rendering.streaks[:, :, None].astype(float)
    added = scene + streaks
    expected = added.clip(max=1) if rendering.blend == "additive" else added - scene * streaks
    assert np.abs(rendering.rain / 255.0 - expected).max() < 0.6 / 255
    assert rendering.streaks.dtype == np.float32
    assert 0.0 <= rendering.streaks.min() < 0.01
    assert 0.2 < rendering.streaks.max() <= 1.0


def test_both_blends_and_both_directions_occur() -> None:
    clean = photograph("rocket", 32)
    renderings = [render(clean, "moderate", seed) for seed in range(20)]
    assert {rendering.blend for rendering in renderings} == {"screen", "additive"}
    assert {rendering.angle_deg > 0 for rendering in renderings} == {True, False}


def test_denser_rain_does_more_damage() -> None:
    def mean_psnr(density: str) -> float:
        values = [
            psnr(clean, render(clean, density, seed).rain)
            for clean in map(read_image, PHOTOGRAPHS[::2])
            for seed in (1, 2)
        ]
        return float(np.mean(values))

    light, moderate, heavy = map(mean_psnr, ("light", "moderate", "heavy"))
    assert 28 < light < 33
    assert 23 < moderate < 27
    assert 17 < heavy < 22


def test_heavy_rain_veils_the_shadows_between_its_streaks() -> None:
    clean = np.zeros((128, 128, 3), np.uint8)
    rendering = render(clean, "heavy", 3)
    between = rendering.rain[rendering.streaks < 0.005]
    assert between.size > 0
    assert between.min() > 0
    assert render(clean, "light", 3).rain.min() == 0


@pytest.mark.parametrize("density", ["light", "moderate", "heavy"])
@pytest.mark.parametrize("seed", range(5))
def test_streaks_have_the_drawn_angle(density: str, seed: int) -> None:
    rendering = render(np.zeros((320, 320, 3), np.uint8), density, seed)
    assert measured_angle_deg(rendering.streaks) == pytest.approx(rendering.angle_deg, abs=2.0)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (3, 8, 8)])
def test_render_refuses_other_layouts(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="height, width, 3"):
        render(np.zeros(shape, np.uint8), "light", 0)
    with pytest.raises(DataError, match="float32"):
        render(np.zeros((8, 8, 3), np.float32), "light", 0)


# -- the folder ----------------------------------------------------------------------------------


def test_a_smaller_count_is_a_prefix_of_a_larger_one(tmp_path: Path) -> None:
    for count in (4, 9):
        synthesize(None, tmp_path / str(count), count=count, seed=5, density="mixed", size_px=48)
    few, many = (tmp_path / "4", tmp_path / "9")
    few_labels, many_labels = (
        json.loads((each / "labels.json").read_text()) for each in (few, many)
    )
    assert list(few_labels.items()) == list(many_labels.items())[:4]
    for kind in ("rain", "clean"):
        assert digests(few / kind).items() < digests(many / kind).items()


def test_labels_describe_every_pair_and_are_found_with_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = synthesize(None, out, count=7, seed=2, density="mixed", size_px=32)
    labels = json.loads((out / "labels.json").read_text())
    for kind in ("rain", "clean"):
        assert [path.name for path in sorted((out / kind).iterdir())] == list(labels)
    for name, label in labels.items():
        assert label["label"] == f"{label['density']} rain"
        assert label["scene"] in name
        again = render(read_image(out / "clean" / name), label["density"], label["seed"])
        assert np.array_equal(again.rain, read_image(out / "rain" / name))
        assert label["angle_deg"] == pytest.approx(again.angle_deg, abs=1e-3)
    found = find_pairs("paired", out)
    assert [pair.labels["density"] for pair in found.pairs] == [
        each["density"] for each in labels.values()
    ]
    assert found.unpaired == []
    assert summary.pairs == sum(summary.densities.values()) == 7


@pytest.mark.parametrize("part", ["train", "all"])
def test_every_scene_has_every_density(tmp_path: Path, part: str) -> None:
    synthesize(None, tmp_path / "out", count=36, seed=1, density="mixed", size_px=16, part=part)
    labels = json.loads((tmp_path / "out" / "labels.json").read_text()).values()
    for scene in {label["scene"] for label in labels}:
        assert len({label["density"] for label in labels if label["scene"] == scene}) == 3


def test_parts_share_no_scene_and_leave_none_out(tmp_path: Path) -> None:
    scenes = {
        part: set(
            synthesize(
                None, tmp_path / part, count=20, seed=3, density="light", size_px=16, part=part
            ).scenes
        )
        for part in ("train", "validation", "test", "all")
    }
    parts = [scenes[part] for part in ("train", "validation", "test")]
    assert set.union(*parts) == scenes["all"]
    assert sum(map(len, parts)) == len(scenes["all"])
    assert min(map(len, parts)) >= 2


def test_crops_are_windows_of_the_photograph_that_move(clean_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    synthesize(clean_dir, out, count=6, seed=1, density="heavy", size_px=24)
    corners = set()
    for path in sorted((out / "clean").iterdir()):
        crop = read_image(path).astype(int)
        assert crop.shape == (24, 24, 3)
        assert np.array_equal(crop[:, :, 0] - crop[0, 0, 0], np.tile(np.arange(24), (24, 1)))
        assert np.array_equal(crop[:, :, 1] - crop[0, 0, 1], np.tile(np.arange(24)[:, None], 24))
        corners.add(tuple(crop[0, 0, :2]))
    assert len(corners) > 3


def test_whole_photographs_keep_their_size_and_get_the_requested_density(
    clean_dir: Path, tmp_path: Path
) -> None:
    summary = synthesize(clean_dir, tmp_path / "out", count=2, seed=1, density="heavy")
    assert summary.scenes == ("scene0", "scene1")
    assert summary.densities == {"heavy": 2}
    assert read_image(next((tmp_path / "out" / "rain").iterdir())).shape == (40, 48, 3)


def test_an_occupied_folder_is_left_as_it_is(clean_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OccupiedError, match=r"thesis\.tex.*Choose a new folder"):
        synthesize(clean_dir, out, count=1, seed=0, density="light")
    assert list(out.iterdir()) == [out / "thesis.tex"]
    with pytest.raises(OccupiedError, match="is a file"):
        synthesize(clean_dir, out / "thesis.tex", count=1, seed=0, density="light")


def test_an_empty_folder_is_filled(clean_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    synthesize(clean_dir, tmp_path / "out", count=1, seed=0, density="light")
    assert (tmp_path / "out" / "labels.json").is_file()


def test_a_damaged_photograph_costs_only_its_pairs(clean_dir: Path, tmp_path: Path) -> None:
    synthesize(clean_dir, tmp_path / "whole", count=7, seed=0, density="light")
    data = (clean_dir / "scene2.png").read_bytes()
    (clean_dir / "scene2.png").write_bytes(data[: len(data) // 2])
    summary = synthesize(clean_dir, tmp_path / "out", count=7, seed=0, density="light")
    assert summary.pairs == 6
    (left_out,) = summary.left_out
    assert left_out.path == str(clean_dir / "scene2.png")
    assert left_out.reason.startswith("damaged: ")
    whole, rest = digests(tmp_path / "whole"), digests(tmp_path / "out")
    lost = {Path(name).name for name in set(whole) - set(rest)}
    assert lost == {"000002-scene2.png"}
    assert {name: rest[name] for name in rest if name.endswith(".png")}.items() <= whole.items()


def test_what_is_no_photograph_is_passed_over(clean_dir: Path, tmp_path: Path) -> None:
    os.mkfifo(clean_dir / "live.jpg")
    (clean_dir / "scene9.png").mkdir()
    (clean_dir / "below").mkdir()
    (clean_dir / "scene3.png").rename(clean_dir / "below" / "scene3.png")
    summary = synthesize(clean_dir, tmp_path / "out", count=8, seed=0, density="light")
    assert summary.scenes == ("scene0", "scene1", "scene2", "scene4")
    assert summary.left_out == ()


def test_odd_photographs_are_converted(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    for kind in ("TIFF of 16 bits", "PNG in Display P3", "JPEG of orientation 6"):
        (tmp_path / "clean" / f"{kind}.png").write_bytes(VARIANTS[kind])
    synthesize(tmp_path / "clean", tmp_path / "out", count=3, seed=0, density="light")
    for path in (tmp_path / "out" / "clean").iterdir():
        kind = path.stem.partition("-")[2]
        np.testing.assert_array_equal(read_image(path), read_odd(VARIANTS[kind], kind).plain())


def test_long_names_and_names_that_are_not_utf8_are_taken(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    for name in ("\u96e8" * 83 + ".jpg", os.fsdecode(b"\xd3\xea.png")):
        (tmp_path / "clean" / name).write_bytes(VARIANTS["PNG in Display P3"])
    synthesize(tmp_path / "clean", tmp_path / "out", count=2, seed=0, density="light")
    found = find_pairs("paired", tmp_path / "out")
    assert len(found.pairs) == 2
    assert all(pair.labels["density"] == "light" for pair in found.pairs)


def test_folders_without_photographs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no image")
    for folder, complaint in (("notes", "no image"), ("absent", "is not a folder")):
        with pytest.raises(DataError, match=complaint):
            synthesize(tmp_path / folder, tmp_path / "out", count=1, seed=0, density="light")


def test_too_few_or_too_small_photographs_are_refused(clean_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="48 x 40 px, too small for a crop of 41 px"):
        synthesize(clean_dir, out, count=1, seed=0, density="light", size_px=41)
    for name in ("scene0.png", "scene1.png"):
        (clean_dir / name).unlink()
    with pytest.raises(DataError, match="at least 6"):
        synthesize(clean_dir, out, count=1, seed=0, density="light", part="validation")


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"seed": -1}, {"density": "torrential"}, {"size_px": 0}, {"part": "held_out"}],
)
def test_invalid_arguments_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    values = {"count": 1, "seed": 0, "density": "light"} | wrong
    with pytest.raises(UsageError, match=re.escape(str(next(iter(wrong.values()))))):
        synthesize(None, tmp_path / "out", **values)
    assert list(tmp_path.iterdir()) == []


# -- the photographs in the package ---------------------------------------------------------------


def test_every_photograph_has_an_accepted_licence() -> None:
    text = (bundled_photographs() / "LICENCES.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if ".jpg |" in line]
    assert sorted(row[0] for row in rows) == [path.name for path in PHOTOGRAPHS]
    licences = {row[4] for row in rows}
    assert licences <= {
        "CC0-1.0",
        "CC-BY-2.0",
        "CC-BY-4.0",
        "BSD-3-Clause",
        "LicenseRef-Public-Domain",
    }
    assert all(row[2].strip() and row[3].strip() for row in rows)


def test_photographs_are_readable_and_small() -> None:
    assert len(PHOTOGRAPHS) >= 10
    for path in PHOTOGRAPHS:
        height, width, _ = read_image(path).shape
        assert 256 <= min(height, width) <= max(height, width) <= 640
    assert sum(path.stat().st_size for path in PHOTOGRAPHS) < 3_000_000
