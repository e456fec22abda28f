"""Results of other programs: paired by name; what is missing, extra, damaged or ambiguous."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks._small import write_dataset
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from derain.evaluation.results_folder import ResultsFolder, find_folders, open_results
from tests.folders import noise_image

SIZE = {"width": 40, "height": 32}
Write = Callable[..., Path]


@pytest.fixture
def dataset(tmp_path: Path) -> Prepared:
    """Three pairs, `rain/rain-N.png` and `clean/norain-N.png`."""
    return make_dataset(tmp_path / "prepared", ("1", "2", "3"))


def make_dataset(
    out: Path, names: tuple[str, ...], rain: str = "rain-", clean: str = "norain-"
) -> Prepared:
    source = out.with_name(f"{out.name}-source")
    for number, name in enumerate(names):
        for side, prefix in (("rain", rain), ("clean", clean)):
            file = source / side / f"{prefix}{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise_image(number, side == "rain", **SIZE).save(file)
    return write_dataset(source, out, shards=1)


def write(folder: Path, *names: str, **size: int) -> Path:
    """Noise images of these names, the first of seed 0."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(number, 7, **(SIZE | size)).save(folder / name)
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def keys(dataset: Prepared) -> list[str]:
    return dataset.column("key").tolist()


def numbers(results: ResultsFolder) -> dict[str, str]:
    """Which file each pair got, by the last letter of its key."""
    return {key[-1]: path.name for key, path in results.files.items()}


@pytest.mark.parametrize(
    ("pattern", "way"),
    [
        ("rain-{}.png", "key"),
        ("norain-{}.tiff", "clean name"),
        ("deep/er/rain-{}.webp", "key"),
        ("rain-{}_NAFNet-width32.png", "_NAFNet-width32"),
    ],
)
def test_results_are_paired_by_any_name_of_the_pair(
    dataset: Prepared, tmp_path: Path, pattern: str, way: str
) -> None:
    names = [pattern.format(number) for number in (3, 1, 2)]
    results = open_results("theirs", write(tmp_path / "out", *names), dataset)
    assert numbers(results) == {str(n): Path(pattern.format(n)).name for n in (1, 2, 3)}
    assert way in results.paired_by
    assert not results.missing
    assert results.extra == ()
    again = copy.deepcopy(results)  # by the same means as another process gets it
    for key in keys(dataset):
        np.testing.assert_array_equal(again.levels(key, 32, 40), pixels(results.files[key]))


def test_missing_extra_ambiguous_damaged_and_resized_results_are_listed(
    dataset: Prepared, tmp_path: Path
) -> None:
    folder = write(tmp_path / "out", "rain-1.png", "rain-2.png", "rain-2.bmp", "other.png")
    results = open_results("theirs", folder, dataset)
    one, two, three = keys(dataset)
    assert list(results.files) == [one]
    assert results.extra == ("other.png",)
    with pytest.raises(DataError, match=r"2 results: rain-2\.bmp and rain-2\.png\. Keep one"):
        results.levels(two, 32, 40)
    with pytest.raises(DataError, match="no result; expected an image called `rain-3`"):
        results.levels(three, 32, 40)
    with pytest.raises(DataError, match=r"expected 41x32 px.*found 40x32 px"):
        results.levels(one, 32, 41)
    (folder / "rain-1.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(DataError, match=r"rain-1\.png"):
        results.levels(one, 32, 40)


def test_any_image_that_is_read_is_a_result_if_it_is_opaque(
    dataset: Prepared, tmp_path: Path
) -> None:
    folder = write(tmp_path / "out", "rain-1.jpg", "rain-2.png")
    Image.fromarray(np.full((32, 40), 25_700, np.uint16)).save(folder / "rain-3.png")
    opaque = Image.open(folder / "rain-2.png").convert("RGBA")
    opaque.save(folder / "rain-2.png")
    results = open_results("theirs", folder, dataset)
    one, two, three = keys(dataset)
    assert (results.levels(three, 32, 40) == 100).all()  # 25,700 / 257
    np.testing.assert_array_equal(results.levels(two, 32, 40), np.asarray(opaque)[..., :3])
    np.testing.assert_array_equal(results.levels(one, 32, 40), pixels(folder / "rain-1.jpg"))
    assert results.remarks == ("1 of its results are JPEG files, whose losses are in the metrics",)
    opaque.putalpha(200)
    opaque.save(folder / "rain-2.png")
    with pytest.raises(DataError, match="partly transparent"):
        results.levels(two, 32, 40)


def test_names_that_fit_nothing_or_two_ways_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "numbered", ("1", "2"))
    with pytest.raises(DataError, match=r"none of its 1 images.*found else\.png"):
        open_results("theirs", write(tmp_path / "else", "else.png"), dataset)
    with pytest.raises(DataError, match="no such folder of results"):
        open_results("theirs", tmp_path / "nowhere", dataset)
    shifted = renamed(dataset, ["rain/a.png", "rain/b.png"], ["clean/b.png", "clean/a.png"])
    folder = write(tmp_path / "two ways", "a.png", "b.png")
    with pytest.raises(DataError, match="ambiguous names"):
        open_results("theirs", folder, shifted)


def renamed(dataset: Prepared, rain: list[str], clean: list[str]) -> Prepared:
    """The dataset with other names of its source images."""
    index = dataset.index
    for column, names in (("rain_source", rain), ("clean_source", clean)):
        index = index.set_column(index.schema.get_field_index(column), column, [names])
    return Prepared(dataset.folder, dataset.manifest, index)


def test_clean_names_that_several_pairs_share_pair_nothing(tmp_path: Path) -> None:
    rain = [f"rainy_image/{scene}_{number}.jpg" for scene in (1, 2) for number in (1, 2)]
    clean = [f"ground_truth/{scene}.jpg" for scene in (1, 1, 2, 2)]
    dataset = renamed(make_dataset(tmp_path / "scenes", tuple("1234")), rain, clean)
    results = open_results("theirs", write(tmp_path / "out", "1_1.png", "2_2.png"), dataset)
    assert [path.stem for path in results.files.values()] == ["1_1", "2_2"]
    assert len(results.missing) == 2
    with pytest.raises(DataError, match="none of its 2 images"):
        open_results("theirs", write(tmp_path / "by scene", "1.png", "2.png"), dataset)


def test_each_of_several_datasets_has_a_folder_of_its_name(tmp_path: Path) -> None:
    light = make_dataset(tmp_path / "Rain100L", ("1",))
    heavy = make_dataset(tmp_path / "heavy", ("1",))
    datasets = {"light": light, "heavy": heavy}
    out = write(tmp_path / "out", "rain100l/1.png")
    assert find_folders(out, {"light": light}) == {"light": out}
    assert find_folders(out, datasets) == {"light": out / "rain100l"}
    write(out, "Heavy/1.png", "train/1.png")  # both datasets are of the split `train`
    found = find_folders(out, datasets)
    assert found == {"light": out / "rain100l", "heavy": out / "Heavy"}
    with pytest.raises(DataError, match="expected a folder of results for each of the 2 datasets"):
        find_folders(write(tmp_path / "flat", "1.png"), datasets)
