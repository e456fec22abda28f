"""The report's images and the importance of parameters, against figures made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.config.sweep import Dimension
from derain.tune.report.plots import draw_curves, draw_parallel, importance, style


def rows(values: list[tuple[dict[str, Any], float]]) -> list[dict[str, Any]]:
    return [
        {"params": params, "metrics": {"psnr_y": score}, "status": "finished"}
        for params, score in values
    ]


def test_importance_is_the_share_of_variance_that_a_parameter_explains() -> None:
    # score = 3 a + b over a full 2 x 2 grid: the variances of the parts are 9 : 1
    grid = rows([({"a": a, "b": b}, 3.0 * a + b) for a in (0, 1) for b in (0, 1)])
    shares = importance(grid, "psnr_y")
    assert list(shares) == ["a", "b"]
    assert shares == pytest.approx({"a": 0.9, "b": 0.1})


def test_importance_leaves_out_what_says_nothing() -> None:
    each_once = rows([({"name": name, "same": 1}, score) for name, score in (("x", 1), ("y", 2))])
    assert importance(each_once, "psnr_y") == {}
    alike = rows([({"a": a}, 30.0) for a in (0, 0, 1, 1)])
    assert importance(alike, "psnr_y") == {}


def test_many_numbers_are_binned_by_quartile() -> None:
    steps = rows([({"a": at / 100}, float(at // 10)) for at in range(40)])
    assert importance(steps, "psnr_y") == pytest.approx({"a": 1.0})
    noise = np.random.default_rng(0).normal(size=40)
    assert (
        importance(rows([({"a": at / 100}, n) for at, n in enumerate(noise)]), "psnr_y")["a"] < 0.3
    )


@pytest.mark.parametrize("count", [8, 16, 40])
def test_a_conditional_number_without_effect_explains_little(count: int) -> None:
    """Mean over 100 draws; the same numbers, each a group of its own, explain half and more."""
    shares = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        drawn = [rng.uniform() if at % 2 else None for at in range(count)]
        values = zip(({"start": value} for value in drawn), rng.normal(size=count), strict=True)
        shares.append(importance(rows(list(values)), "psnr_y")["start"])
    assert np.mean(shares) < 0.2


def test_a_conditional_number_with_an_effect_explains_it() -> None:
    trials = [({"start": at / 20}, at // 5 + 1.0) for at in range(20)] + [
        ({"start": None}, 9.0)
    ] * 5
    assert importance(rows(trials), "psnr_y") == pytest.approx({"start": 1.0})


def test_stopped_trials_are_dashed(tmp_path: Path) -> None:
    space = {"lr": Dimension(uniform=(0.0, 1.0))}
    trials = rows([({"lr": at / 3}, 30.0 + at) for at in range(4)])
    images = []
    for status in ("finished", "stopped"):
        told = [{**trial, "status": status} for trial in trials]
        draw_parallel(told, "psnr_y", space, tmp_path / "parallel.png")
        images.append(np.asarray(Image.open(tmp_path / "parallel.png"), dtype=int))
    whole, dashed = images
    assert dashed.sum() > whole.sum()  # gaps are white


def test_forty_curves_can_be_told_apart() -> None:
    assert len({tuple(style(number).items()) for number in range(40)}) == 40


def test_validation_figures_get_a_panel_of_their_own(tmp_path: Path) -> None:
    sizes = {}
    for name, line in (("plain", ""), ("validated", ', "psnr_y": 30.0')):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(
            "".join(f'{{"step": {s}, "loss": {1 / s}{line}}}\n' for s in (1, 2, 3))
        )
        draw_curves([{"name": name, "folder": str(folder)}], "psnr_y", folder / "curves.png")
        sizes[name] = Image.open(folder / "curves.png").width
    assert sizes["validated"] == 2 * sizes["plain"]
