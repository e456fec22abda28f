"""The plots of a report: line styles, and a panel for validation."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.config.sweep import Dimension
from derain.tune.report.curves import Curves
from derain.tune.report.plots import curve_style, draw_curves, draw_parallel


def rows(values: list[tuple[dict[str, Any], float]]) -> list[dict[str, Any]]:
    return [
        {"params": params, "metrics": {"psnr_y": score}, "status": "finished"}
        for params, score in values
    ]


def test_stopped_trials_are_dashed(tmp_path: Path) -> None:
    space = {"lr": Dimension(uniform=(0.0, 1.0))}
    trials = rows([({"lr": at / 3}, 30.0 + at) for at in range(4)])
    images = []
    for status in ("finished", "stopped"):
        listed = [{**trial, "status": status} for trial in trials]
        draw_parallel(listed, "psnr_y", space, tmp_path / "parallel.png")
        images.append(np.asarray(Image.open(tmp_path / "parallel.png"), dtype=int))
    whole, dashed = images
    assert dashed.sum() > whole.sum()  # gaps are white


def test_forty_curves_have_different_styles() -> None:
    assert len({tuple(curve_style(number).items()) for number in range(40)}) == 40


@pytest.mark.parametrize("validated", [True, False])
def test_each_curve_is_in_both_panels(validated: bool, tmp_path: Path) -> None:
    steps = np.arange(1, 31)
    best, other = (steps, 1 / steps), (steps, 1.1 / steps)
    curves = Curves("psnr_y", validated, {"a": best, "b": other}, {"b": other})
    draw_curves(curves, tmp_path / "curves.png")
    image = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"), dtype=int)
    orange = np.abs(image - [255, 127, 14]).sum(axis=2) < 30  # C1, of trial b
    left, right = np.array_split(orange, 2, axis=1)
    assert left.any()
    assert right.any()


def test_of_many_curves_the_best_have_names_and_the_others_are_grey(tmp_path: Path) -> None:
    steps = np.arange(1, 4)
    names = [f"trial {number} with a long name {'of many words ' * 9}" for number in range(300)]
    series = {name: (steps, np.full(3, float(at))) for at, name in enumerate(names)}
    with warnings.catch_warnings():
        # matplotlib warns where no room is left for the curves
        warnings.simplefilter("error", UserWarning)
        draw_curves(Curves("psnr_y", True, series, {}), tmp_path / "curves.png")
    image = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"), dtype=int)
    left, _ = np.array_split(image, 2, axis=1)
    grey = np.abs(left - 0xCC).sum(axis=2) < 12
    blue = np.abs(left - [31, 119, 180]).sum(axis=2) < 30
    assert grey.sum() > 20 * blue.sum() > 0
