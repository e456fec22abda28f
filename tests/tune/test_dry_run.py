"""`train --dry-run`: the checks of the command itself, and what the run will take."""

from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.training import checkpoint
from derain.tune import estimate
from derain.tune.dry_run import describe_run
from derain.tune.estimate import Pace, estimate_run
from tests.tune.runs import made


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_is_planned_and_nothing_is_written(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tree = {**tiny, "output_dir": str(tmp_path / "runs"), "register": {"name": "mine"}}
    planned = describe_run(Config.model_validate(tree), price_per_hour=3600.0)
    assert planned["warnings"] == []
    found = planned["estimate"]
    assert found["cost"] == pytest.approx(found["seconds"])
    assert (found["steps"], found["gpu_hours"]) == (4, 0)
    assert found["memory_bytes"] > 2**26
    assert found["free_bytes"] > found["disk_bytes"] > 0
    assert planned["register"] == "mine"
    assert not any(tmp_path.glob("*.db"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_what_would_stop_a_resume_is_listed(tiny: dict[str, Any], tmp_path: Path) -> None:
    folder = made.run(tmp_path, "tiny")
    config = Config.model_validate({**tiny, "output_dir": str(tmp_path)})
    with checkpoint.command_lock(folder):
        (busy,) = describe_run(config, resumed=True)["warnings"]
    assert "another process is training this run" in busy
    planned = describe_run(config.replaced({"train.lr": 0.5}, "test"), resumed=True)
    assert planned["resumes_from_step"] == 4
    assert "another" in planned["warnings"][0]
    assert "train.lr" in planned["warnings"][0]


def test_validations_and_what_is_done_count(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "_pace", lambda _: Pace(2.0, 3.0, 2**30))
    monkeypatch.setattr(estimate, "uses_gpu", lambda _: True)
    monkeypatch.setattr(estimate, "_with_shared_cores", lambda config: config)
    config = Config.model_validate(tiny).replaced({"train.eval_every_steps": 2}, "test")
    found = estimate_run(config, done=1, price_per_hour=36.0)
    seconds = estimate.START_S + 3 * 2.0 + 3 * 2 * 3.0  # 3 steps; 3 times 2 validation images
    assert found["seconds"] == seconds
    assert found["gpu_hours"] == seconds / 3600
    assert found["cost"] == pytest.approx(seconds / 100)
