"""Grids of images: which images, and in which order."""

import numpy as np

from derain.evaluation.gallery import best_and_worst, gallery


def test_best_and_worst_are_by_psnr_and_no_image_appears_twice() -> None:
    scores = [{"metrics": {"psnr_y": value}} for value in (30.0, 20.0, 40.0, 10.0, 25.0)]
    assert best_and_worst(scores, 2) == [2, 0, 1, 3]
    assert best_and_worst(scores, 3) == [2, 0, 4, 1, 3]
    assert best_and_worst(scores[:1], 2) == [0]


def test_the_gallery_has_rows_of_rainy_derained_and_clean() -> None:
    shapes = [(8, 10), (6, 7), (5, 9)]
    pixels = [np.full((2, *shape, 3), (at + 1) * 20, np.uint8) for at, shape in enumerate(shapes)]
    grid = gallery([lambda rain: rain + 1], pixels, 2)  # type: ignore[arg-type]
    assert grid.shape == (8 + 4 + 5, 10 * 3 + 4 * 2, 3)
    assert grid[0, 0, 0] == 20
    assert grid[0, 14, 0] == 21
    assert grid[-1, 0, 0] == 60
    assert grid[-1, -1, 0] == 255
