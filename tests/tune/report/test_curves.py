"""Learning curves show one quantity, and differences are taken at the same steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derain.config import Config
from derain.tune.report.curves import Curves, read_curves, running_mean


def config(space: dict[str, Any] | None = None, **values: Any) -> Config:
    tree = {
        "name": "search",
        "model": {"name": "fclip_unet", "encoder_weights": "random"},
        "train": {"steps": 3},
        "loss": {"pixel": "mse", "perceptual": "none"},
        "sweep": {"space": space or {"train.lr": {"grid": [0.1, 0.2]}}},
    }
    return Config.model_validate({**tree, **values})


def trials(folder: Path, logs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Trials of one seed with these lines in their metrics files."""
    rows = []
    for name, lines in logs.items():
        (folder / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name / "metrics.jsonl").write_text(text)
        rows.append({"name": name, "point": name, "seed": 0, "folder": str(folder / name)})
    return rows


LOSSES = {
    "best": [{"step": 1, "loss": 3.0, "mse": 0.3}, {"step": 2, "loss": 1.0, "mse": 0.1}],
    "other": [{"step": 2, "loss": 4.0, "mse": 0.2}, {"step": 3, "loss": 2.0, "mse": 0.1}],
}


def test_the_metric_is_shown_where_trials_were_validated(tmp_path: Path) -> None:
    rows = trials(
        tmp_path,
        {
            "best": [{"step": step, "loss": 1.0, "psnr_y": 30.0 + step} for step in (2, 4, 6)],
            "stopped": [{"step": step, "loss": 1.0, "psnr_y": 30.5} for step in (2, 4)],
            "never": [{"step": 2, "loss": 1.0}],
        },
    )
    found = read_curves(config(), rows[:1], rows[1:], "psnr_y")
    assert isinstance(found, Curves)
    assert (found.quantity, found.larger_is_better) == ("psnr_y", True)
    assert list(found.trials) == ["best", "stopped"]
    steps, behind = found.differences["stopped"]
    assert (steps.tolist(), behind.tolist()) == ([2, 4], [1.5, 3.5])
    assert list(found.differences) == ["stopped"]


@pytest.mark.parametrize(
    ("space", "quantity", "behind"),
    [
        ({"train.lr": {"grid": [0.1, 0.2]}}, "loss", 3.0),
        ({"loss.lambda_p": {"grid": [0.1, 0.2]}}, "mse", 0.1),
    ],
)
def test_without_validation_the_common_part_of_the_loss_is_shown(
    space: dict[str, Any], quantity: str, behind: float, tmp_path: Path
) -> None:
    rows = trials(tmp_path, LOSSES)
    found = read_curves(config(space), rows, [], "psnr_y")
    assert isinstance(found, Curves)
    assert (found.quantity, found.larger_is_better) == (quantity, False)
    steps, values = found.differences["other"]
    assert steps.tolist() == [2]
    assert values.tolist() == pytest.approx([behind])


@pytest.mark.parametrize(
    ("planned", "reason"),
    [
        (
            config(loss={"pixel": "power", "schedule": {}, "perceptual": "none"}),
            "the losses of two steps are not the same quantity",
        ),
        (config({"loss.pixel": {"grid": ["l1", "mse"]}}), "different pixel losses"),
    ],
)
def test_losses_that_are_not_one_quantity_are_not_drawn(
    planned: Config, reason: str, tmp_path: Path
) -> None:
    found = read_curves(planned, trials(tmp_path, LOSSES), [], "psnr_y")
    assert isinstance(found, str)
    assert reason in found


def test_a_constant_exponent_is_no_schedule(tmp_path: Path) -> None:
    loss = {"pixel": "power", "schedule": {"kind": "constant"}, "perceptual": "none"}
    found = read_curves(config(loss=loss), trials(tmp_path, LOSSES), [], "psnr_y")
    assert isinstance(found, Curves)


def test_the_running_mean_is_over_a_tenth() -> None:
    steps, values = running_mean((np.arange(20), np.arange(20.0)))
    assert (steps[0], steps[-1]) == (1, 19)
    assert values.tolist() == [at + 0.5 for at in range(19)]
