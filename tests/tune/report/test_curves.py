"""Learning curves show one quantity, and differences are taken at the same steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from derain.tune.report.curves import Curves, read_curves, running_mean


def trials(folder: Path, logs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Trials of one seed with these lines in their metrics files."""
    rows = []
    for name, lines in logs.items():
        (folder / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name / "metrics.jsonl").write_text(text)
        rows.append({"name": name, "point": name, "seed": 0, "folder": str(folder / name)})
    return rows


def test_the_metric_is_shown_where_trials_were_validated(tmp_path: Path) -> None:
    rows = trials(
        tmp_path,
        {
            "best": [{"step": step, "loss": 1.0, "psnr_y": 30.0 + step} for step in (2, 4, 6)],
            "stopped": [{"step": step, "loss": 1.0, "psnr_y": 30.5} for step in (2, 4)],
            "never": [{"step": 2, "loss": 1.0}],
        },
    )
    found = read_curves(rows[:1], rows[1:], "psnr_y")
    assert isinstance(found, Curves)
    assert (found.quantity, found.validated) == ("psnr_y", True)
    assert list(found.trials) == ["best", "stopped"]
    steps, behind = found.differences["stopped"]
    assert (steps.tolist(), behind.tolist()) == ([2, 4], [1.5, 3.5])
    assert list(found.differences) == ["stopped"]


def test_without_validation_the_psnr_of_the_crops_is_shown(tmp_path: Path) -> None:
    rows = trials(
        tmp_path,
        {
            "best": [{"step": at, "loss": 9.0 + at, "train_psnr": 20.0 + at} for at in (1, 2)],
            "other": [{"step": at, "loss": 1.0, "train_psnr": 19.0 + at} for at in (2, 3)],
        },
    )
    found = read_curves(rows, [], "psnr_y")
    assert isinstance(found, Curves)
    assert (found.quantity, found.validated) == ("train_psnr", False)
    steps, values = found.differences["other"]
    assert (steps.tolist(), values.tolist()) == ([2], [1.0])


def test_trials_without_a_step_have_no_curves(tmp_path: Path) -> None:
    found = read_curves(trials(tmp_path, {"best": []}), [], "psnr_y")
    assert found == "the trials have logged no step"


def test_the_running_mean_is_over_a_tenth() -> None:
    steps, values = running_mean((np.arange(20), np.arange(20.0)))
    assert (steps[0], steps[-1]) == (1, 19)
    assert values.tolist() == [at + 0.5 for at in range(19)]
