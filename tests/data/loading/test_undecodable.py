"""A pair that cannot be decoded costs itself: the rest is read, scored and validated."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks._small import write_dataset
from derain.data.loading.cache import MappedPixels, PartPixels, TarPixels, open_pixels
from derain.data.loading.undecodable import note_path, read_note, substitutes
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.sources.selection import Naming
from derain.data.synthetic.synthesis import bundled_photographs
from derain.errors import DataError
from derain.evaluation.scoring import score_dataset
from derain.pipelines.prepare.verb import prepare
from tests.data.images.odd_images import spoiled
from tests.folders import PairedFolder, write_scenes


def test_the_next_pair_takes_the_place_of_one_without_pixels(
    spoiled_set: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = open_pixels(spoiled_set, folder=tmp_path / "c", budget_gib=1)
    assert "2 of 5 pairs cannot be decoded and are left out" in caplog.text
    again = open_pixels(spoiled_set, folder=tmp_path / "c", budget_gib=1)
    tars = TarPixels(spoiled_set)
    made, arguments = again.__reduce__()  # as another process makes it
    for pixels in (built, again, made(*arguments), tars):
        for at, taken in ((1, 2), (4, 0)):
            np.testing.assert_array_equal(pixels[at], pixels[taken])
        assert set(pixels.left_out) == {1, 4}
        assert "001.rain.png" in pixels.left_out[1]
    assert isinstance(again, MappedPixels)
    np.testing.assert_array_equal(again[3], tars[3])


def test_only_a_pair_of_the_same_part_takes_the_place(
    spoiled_set: Prepared, tmp_path: Path
) -> None:
    """Otherwise a training image could be scored as a validation image."""
    keys = spoiled_set.column("key").tolist()
    part = spoiled_set.part(np.array([keys.index("000"), keys.index("001"), keys.index("003")]))
    whole = open_pixels(spoiled_set, folder=tmp_path / "c", budget_gib=1)
    tars = TarPixels(spoiled_set)
    cached = open_pixels(part, folder=tmp_path / "c", budget_gib=1)
    for pixels in (cached, PartPixels(tars, part)):
        assert len(pixels) == 3
        for number, key in enumerate(("000", "003", "003")):
            np.testing.assert_array_equal(pixels[number], whole[keys.index(key)])
        assert list(pixels.left_out) == [1]
    assert set(tars.left_out) == {keys.index("001")}


def test_the_means_are_those_of_the_pairs_with_pixels(
    spoiled_set: Prepared, tmp_path: Path
) -> None:
    for pixels in (
        open_pixels(spoiled_set, folder=tmp_path / "c", budget_gib=1),
        TarPixels(spoiled_set),
    ):
        scores = score_dataset(lambda rain: rain, spoiled_set, pixels, "rain13k")
        assert [item.key for item in scores.per_picture] == ["000", "002", "003"]
        assert [item.key for item in scores.left_out] == ["001", "004"]
        assert scores.pictures == 3


@pytest.mark.usefixtures("ray_cluster")
def test_a_scene_whose_clean_image_is_spoiled_is_left_out_whole(tmp_path: Path) -> None:
    source = write_scenes(tmp_path / "scenes", 2, 3, width=32, height=24)
    for path in source.rglob("*.jpg"):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    clean = source / "ground_truth/1.png"
    clean.write_bytes(spoiled(clean.read_bytes()))
    naming = Naming("rainy_image/{scene:d}_{n:d}", "ground_truth/{scene:d}")
    done = prepare("paired", source, tmp_path / "prepared", naming=naming, clean_once=True)
    pixels = open_pixels(open_prepared(done.folder), folder=tmp_path / "c", budget_gib=1)
    assert set(pixels.left_out) == {0, 1, 2}


def test_a_dataset_without_any_pixels_is_refused(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(2)
    for path in (source / "rain").iterdir():
        path.write_bytes(spoiled(path.read_bytes()))
    dataset = write_dataset(source, tmp_path / "prepared", shards=1)
    with pytest.raises(DataError, match="no pair can be decoded"):
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    with pytest.raises(DataError, match="no pair can be decoded"):
        TarPixels(dataset)[0]


@pytest.mark.parametrize(
    ("count", "left_out", "expected"),
    [
        (4, {}, [0, 1, 2, 3]),
        (4, {1: "", 2: ""}, [0, 3, 3, 3]),
        (4, {3: "", 0: ""}, [1, 1, 2, 1]),
    ],
)
def test_substitutes(count: int, left_out: dict[int, str], expected: list[int]) -> None:
    assert [substitutes(count, left_out).get(pair, pair) for pair in range(count)] == expected


def test_pairs_without_rain_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for side, quality in (("rain", 95), ("clean", 100)):
        (tmp_path / "source" / side).mkdir(parents=True)
        photograph = bundled_photographs() / "stream.jpg"
        Image.open(photograph).save(tmp_path / "source" / side / "0.jpg", quality=quality)
    dataset = write_dataset(tmp_path / "source", tmp_path / "prepared", shards=1)
    open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    assert "the rainy image is all but equal to the clean one in 1 pair" in caplog.text


@pytest.mark.parametrize("text", ["[", "[]", '{"x": "y"}'])
def test_a_damaged_list_beside_a_cache_is_one_message(tmp_path: Path, text: str) -> None:
    cache = tmp_path / "a.rgb"
    note_path(cache).write_text(text)
    with pytest.raises(DataError, match=r"a\.left_out\.json: damaged\. Remove it and .*a\.rgb"):
        read_note(cache)
