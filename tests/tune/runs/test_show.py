"""`runs show` and `runs compare`: what is said of a run, and how to go on with it."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from derain.cli.app import app
from derain.errors import UsageError
from derain.training import checkpoint
from derain.tune.runs.compare import compare
from derain.tune.runs.curves import drawn, thinned
from derain.tune.runs.shown import show
from tests.tune.runs import made


def test_a_stopped_run_says_how_to_go_on_wherever_it_is(tmp_path: Path) -> None:
    folder = made.run(tmp_path / "runs")
    shown = show(folder, "run")
    (line,) = shown["next"]
    assert shlex.split(line) == [
        "derainctl", "train", str(folder / "config.yaml"), "--resume", "run",
    ]  # fmt: skip
    assert [saved["uses"] for saved in shown["checkpoints"]] == [(), (), (), ("last",)]
    assert shown["commands"][0]["version"]
    moved = folder.rename(tmp_path / "moved")
    (line,) = show(moved, "moved")["next"]
    assert shlex.split(line)[-3:] == ["moved", "--set", f"output_dir={tmp_path}"]


def test_a_sweep_is_shown_with_its_trials(tmp_path: Path) -> None:
    folder = made.sweep(tmp_path, "low", planned={"low": 1e-4, "high": 1e-3})
    shown = show(folder, "search")
    assert [run["name"] for run in shown["runs"]] == ["search/low"]
    assert shown["next"] == [f"derainctl sweep --resume search --set output_dir={tmp_path}"]
    assert show(folder / "low", "search/low")["next"] == shown["next"]


def test_runs_are_compared_by_config_metrics_and_curves(tmp_path: Path) -> None:
    one, two = made.run(tmp_path, "one", psnr={2: 27.0, 4: 29.0}), made.run(tmp_path, "two")
    config = made.config_of(tmp_path, "two", lr=5e-4)
    (two / checkpoint.CONFIG).write_text(config.to_yaml())
    made.finish(one, psnr=30.0)
    made.finish(two, psnr=31.0)
    found = compare([(one, "one"), (two, "two")])
    assert found["config"] == {"train.lr": [1e-3, 5e-4]}
    assert found["metrics"]["validation psnr_y"] == [30.0, 31.0]
    assert found["same_images"]["validation"]
    assert found["curves"]["psnr_y"] == {"one": {"steps": [2, 4], "values": [27.0, 29.0]}}
    assert set(found["curves"]["train_psnr"]) == {"one", "two"}
    with pytest.raises(UsageError, match="at least two"):
        compare([(one, "one")])


def test_metrics_of_other_images_are_not_compared_and_losses_never(tmp_path: Path) -> None:
    one, two = made.run(tmp_path, "one"), made.run(tmp_path, "two")
    made.finish(one)
    result = made.finish(two)
    result["datasets"][0]["manifest_sha256"] = "other"
    made.write_json(two / "result.json", result)
    config = made.config_of(tmp_path, "two").replaced({"loss.pixel": "charbonnier"}, "test")
    (two / checkpoint.CONFIG).write_text(config.to_yaml())
    found = compare([(one, "one"), (two, "two")])
    assert not found["same_images"]["validation"]
    assert "loss" not in found["curves"]
    assert "loss" not in found["metrics"]
    assert set(found["curves"]["train_psnr"]) == {"one", "two"}
    assert len(found["notes"]) == 1
    shown = CliRunner().invoke(app, ["runs", "compare", str(one), str(two)])
    assert shown.exit_code == 0


def test_a_curve_is_drawn_on_the_scale_of_all() -> None:
    rising = {"steps": [0.0, 5.0, 10.0], "values": [0.0, 0.5, 1.0]}
    short = {"steps": [0.0, 5.0], "values": [1.0, 1.0]}
    first, second = drawn([rising, short], width=10)
    assert first == "▁▁▁▁▁▅▅▅▅█"
    assert second == "██████    "
    many = {"steps": [*map(float, range(1000))], "values": [1.0] * 1000}
    assert len(thinned(many)["steps"]) == 200
    assert thinned(many)["steps"][-1] == 999
