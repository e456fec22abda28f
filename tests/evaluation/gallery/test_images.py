"""Error maps against a computation pixel by pixel, which images are shown, and what is refused."""

from typing import Any

import numpy as np
import pytest

from derain.errors import DataError
from derain.evaluation.gallery import GalleryImage, choose, error_map


def pixels(seed: int, height: int = 6, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_error_map_has_the_largest_difference_of_the_channels_up_to_its_last_level() -> None:
    image, clean = pixels(0), pixels(1)
    image[0, 0], clean[0, 0] = (10, 20, 30), (13, 20, 25)
    found = error_map(image, clean)
    assert found[0, 0] == 5
    for y in range(6):
        for x in range(5):
            differences = [abs(int(image[y, x, c]) - int(clean[y, x, c])) for c in range(3)]
            assert found[y, x] == min(63, max(differences))


def test_without_a_clean_image_there_is_no_error_map() -> None:
    image = GalleryImage("set", "a", pixels(0), None, {"net": pixels(1)})
    assert image.error_maps() == {}
    assert list(image.images()) == ["rainy", "net"]


def test_the_input_has_an_error_map_too() -> None:
    image = GalleryImage("set", "a", pixels(0), pixels(2), {"net": pixels(1)})
    assert list(image.images()) == ["rainy", "net", "clean"]
    assert list(image.error_maps()) == ["rainy", "net"]


def test_up_to_the_limit_all_images_are_shown_the_best_first() -> None:
    assert choose([30.0, 20.0, 40.0], 3) == [2, 0, 1]
    assert choose([], 3) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 100])
def test_of_thousands_the_best_the_worst_and_some_between_are_shown(count: int) -> None:
    values = np.random.default_rng(0).permutation(2800).astype(float)
    shown = [values[at] for at in choose(values.tolist(), count)]
    assert len(set(shown)) == count
    assert shown == sorted(shown, reverse=True)
    quarter = count // 4
    assert shown[:quarter] == [2799.0 - at for at in range(quarter)]
    assert shown[count - quarter :] == [quarter - 1.0 - at for at in range(quarter)]
    between = -np.diff(shown[quarter : count - quarter])
    assert not len(between) or between.max() - between.min() <= 1  # even, up to rounding


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clean": pixels(0, width=4)}, r"image clean is uint8 of shape \(6, 4, 3\), expected"),
        ({"outputs": {"net": pixels(0).astype(float)}}, "image net is float64"),
        ({"outputs": {"clean": pixels(0)}}, "named 'clean'"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(changed: dict[str, Any], message: str) -> None:
    given = {"clean": pixels(1), "outputs": {"net": pixels(2)}, **changed}
    with pytest.raises(DataError, match=message):
        GalleryImage("set", "a", pixels(0), **given)
