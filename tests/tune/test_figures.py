"""The report's pictures and the importance of parameters, against figures made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.tune.figures import draw_curves, draw_parallel, importance


def rows(values: list[tuple[dict[str, Any], float]]) -> list[dict[str, Any]]:
    return [{"params": params, "metrics": {"psnr_y": score}} for params, score in values]


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


def test_values_of_every_kind_can_be_drawn(tmp_path: Path) -> None:
    kinds: list[Any] = [None, [0.1, 0.2], {"kind": "constant"}, "word", True]
    trials = rows([({"lr": 10.0**-at, "kind": kind}, 30.0 + at) for at, kind in enumerate(kinds)])
    draw_parallel(trials, "psnr_y", tmp_path / "parallel.png")
    drawn = np.asarray(Image.open(tmp_path / "parallel.png"))
    assert drawn.min() < 128 < drawn.max()


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
