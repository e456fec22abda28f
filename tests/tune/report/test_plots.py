"""The plots of a report: line styles, and a panel for validation."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from derain.config.sweep import Dimension
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


def test_validation_metrics_have_their_own_panel(tmp_path: Path) -> None:
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
