"""`leaks`: shared images are found, reported, and left out of the next `prepare`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.data.images.decode import read_image
from derain.data.images.hashes import hash_image
from derain.data.images.kinds import is_image
from derain.data.prepared.manifest import open_prepared
from derain.data.sources.selection import Naming
from derain.data.synthetic.synthesis import bundled_photographs
from derain.errors import DataError, OccupiedError
from derain.pipelines.leaks.clean_images import hash_dataset
from derain.pipelines.leaks.compare import DISTANCE, compare
from derain.pipelines.leaks.report import read_leaked, summary, write_report
from derain.pipelines.leaks.verb import leaks
from derain.pipelines.prepare.verb import prepare

PHOTOGRAPHS = {
    path.stem: read_image(path)[:193, :241]
    for path in sorted(bundled_photographs().iterdir())
    if is_image(path)
}
SCENES = sorted(PHOTOGRAPHS)
OWN = Naming("rain/{scene}_{n:d}.png", "clean/{scene}.png")


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 80} if path.suffix == ".jpg" else {}))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:  # noqa: ARG001
    """Training: scenes 0 to 5 with two rains each, 0 twice. Test: 4 cropped, 5 as JPEG, 6 and 7."""
    root = tmp_path_factory.mktemp("leaks")
    for number, scene in enumerate([*SCENES[:6], SCENES[0]]):
        name = f"s{number}"
        save(PHOTOGRAPHS[scene], root / f"train/clean/{name}.png")
        for rain in range(2):
            save(PHOTOGRAPHS[scene] // 2, root / f"train/rain/{name}_{rain}.png")
    for number, (suffix, crop) in {
        4: ("png", 1),
        5: ("jpg", 0),
        6: ("png", 0),
        7: ("png", 0),
    }.items():
        pixels = PHOTOGRAPHS[SCENES[number]]
        pixels = pixels[: len(pixels) - crop, : pixels.shape[1] - crop]
        for side in ("input", "target"):
            save(pixels, root / f"test/{side}/t{number}.{suffix}")
    prepare("paired", root / "train", root / "p/train", naming=OWN)
    prepare("paired", root / "test", root / "p/test", split="test")
    return root


def test_shared_scenes_and_copies_are_found(sets: Path) -> None:
    found = leaks(sets / "p/train", sets / "p/test")
    assert {(match.train, match.test, match.exact) for match in found.matches} == {
        ("s4_0", "t4", True),
        ("s5_0", "t5", False),
    }
    assert (found.train_pairs, found.test_pairs) == (14, 4)
    assert (found.train_pictures, found.test_pictures) == (7, 4)
    assert (found.leaked_train_pairs, found.leaked_test_pictures) == (4, 2)
    (copy,) = found.duplicates["train"]
    assert (copy.first, copy.second, copy.distance, copy.exact) == ("s0_0", "s6_0", 0, True)
    assert found.duplicates["test"] == []


def test_equal_pixels_are_found_even_if_a_crop_changes_the_perceptual_hash(sets: Path) -> None:
    train, test = (hash_dataset(open_prepared(sets / "p" / name)) for name in ("train", "test"))
    small = PHOTOGRAPHS[SCENES[8]]
    train.hashes[1] = hash_image(small[:63, :63])
    test.hashes[3] = train.hashes[2] = hash_image(small[:48, :48])
    found = compare(train, test)
    distant = [match for match in found.matches if match.distance > DISTANCE]
    assert [(match.train, match.test, match.exact) for match in distant] == [("s1_0", "t7", True)]
    copies = [it for it in found.duplicates["train"] if it.distance > DISTANCE]
    assert [(it.first, it.second, it.exact) for it in copies] == [("s1_0", "s2_0", True)]


def test_the_distance_limit_decides(sets: Path) -> None:
    found = leaks(sets / "p/train", sets / "p/test", distance=255)
    assert len(found.matches) == 7 * 4
    assert [match.distance for match in found.matches] == sorted(
        match.distance for match in found.matches
    )


def test_the_report_shows_every_match_and_prepare_leaves_them_out(
    sets: Path, tmp_path: Path
) -> None:
    found = leaks(sets / "p/train", sets / "p/test")
    write_report(found, tmp_path / "report")
    for page in ("report.md", "report.html"):
        text = (tmp_path / "report" / page).read_text()
        assert "clean/s5.png | target/t5.jpg" in text
        assert "2 of the test images are in the training set, in 4 of its pairs" in text
        assert text.count("images/000") == 2
    for image in (tmp_path / "report" / "images").iterdir():
        assert Image.open(image).height == 200
    with pytest.raises(OccupiedError, match="not an empty folder"):
        write_report(found, tmp_path / "report")

    names = read_leaked(tmp_path / "report" / "leaks.json")
    done = prepare("paired", sets / "train", tmp_path / "clean", naming=OWN, without=names)
    assert done.pairs == 10
    assert "4 pairs were left out" in done.notes[0]
    assert leaks(tmp_path / "clean", sets / "p/test").matches == []
    with pytest.raises(DataError, match="none of the images that --without lists"):
        prepare("paired", sets / "test", tmp_path / "other", without=names)


def test_the_command_prints_json_and_fails_only_with_strict(sets: Path) -> None:
    command = [sys.executable, "-m", "derain.cli", "leaks", sets / "p/train", sets / "p/test"]
    plain = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    tree = json.loads(plain.stdout)
    assert tree["train_pairs"] == 14
    assert {"train", "test", "distance"} <= set(tree["matches"][0])
    strict = subprocess.run([*command, "--strict"], capture_output=True, text=True, check=False)
    assert strict.returncode == 1
    occupied = [*command, "--report", __file__]
    refused = subprocess.run(occupied, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "is a file, expected a folder" in refused.stderr
    assert "hashing" not in refused.stderr
    assert "2 of the test images" in strict.stdout


def test_a_damaged_image_costs_only_itself(sets: Path, tmp_path: Path) -> None:
    done = prepare("paired", sets / "test", tmp_path / "damaged", split="test")
    row = open_prepared(done.folder).index.to_pylist()[0]
    path = tmp_path / "damaged" / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["clean_offset"] + 100] ^= 1
    path.write_bytes(data)
    found = leaks(sets / "p/train", tmp_path / "damaged")
    (left_out,) = found.left_out["test"]
    assert left_out.path == row["clean_source"]
    assert "clean image of t4: damaged" in left_out.reason
    assert {match.test for match in found.matches} == {"t5"}
    assert "1 clean images of test cannot be read and were left out" in summary(found)
    run = subprocess.run(
        [sys.executable, "-m", "derain.cli", "leaks", str(sets / "p/train"), str(path.parent)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1
    assert "cannot be read" in run.stdout
    path.unlink()
    with pytest.raises(DataError, match=r"no image can be read: .*No such file.* Prepare the"):
        leaks(sets / "p/train", tmp_path / "damaged")
