"""Progress is read from the metrics files of runs and logged as lines without a terminal."""

import io
import logging
import time
from pathlib import Path

import pytest
from rich.console import Console

from derain.pipelines.train import progress
from derain.pipelines.train.metrics_file import append_metrics
from derain.pipelines.train.progress import show_progress
from tests.processes import wait_for


def append(folder: Path, step: int, loss: float) -> None:
    append_metrics(folder, step, {"loss": loss, "train_psnr": 21.5, "steps_per_s": 2.0})


def test_lines_name_the_run_and_its_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    folders = {name: tmp_path / name for name in ("first", "second", "waiting")}
    for name in ("first", "second"):
        folders[name].mkdir()
    with show_progress(lambda: folders, steps=3):
        append(folders["first"], 1, 0.25)
        deadline = time.monotonic() + 10
        while "first" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        append(folders["first"], 3, 0.125)
        append(folders["second"], 2, 0.5)
    assert "first: step 1/3, 21.50 dB on crops, loss 0.2500, 2.0 steps/s" in caplog.text
    assert (
        "first: step 3/3, 21.50 dB on crops, loss 0.1250" in caplog.text
    )  # the last step is always logged
    assert "second: step 2/3" in caplog.text
    assert "waiting" not in caplog.text


def test_the_newest_step_of_a_long_run_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    for step in range(1, 1001):
        append(tmp_path, step, 1 / step)
    with show_progress(lambda: {"long": tmp_path}, steps=1000):
        pass
    assert "long: step 1000/1000, 21.50 dB on crops, loss 0.0010" in caplog.text
    assert caplog.text.count("long: step") == 1


def test_only_the_runs_of_a_look_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    monkeypatch.setattr(progress, "POLL_EVERY_S", 0.01)
    looks = iter([{"short": tmp_path / "short"}])
    for name in ("short", "long"):
        (tmp_path / name).mkdir()
        append(tmp_path / name, 1, 0.5)
    read: list[str] = []
    original = progress.read_latest_metrics
    monkeypatch.setattr(
        progress, "read_latest_metrics", lambda it: (read.append(it.name), original(it))[1]
    )
    with show_progress(lambda: next(looks, {"long": tmp_path / "long"}), steps=2):
        wait_for(lambda: read.count("long") > 5, 10)
    assert read.count("short") == 1
    assert "short: step 1/2" in caplog.text


def test_old_bars_make_room() -> None:
    bars = progress._Bars(10, Console(file=io.StringIO(), force_terminal=True))
    latest = {"step": 10, "loss": 0.5, "steps_per_s": 1.0}
    names = [f"trial-{number}" for number in range(progress.MOST_BARS + 5)]
    for name in names:
        bars.update(name, latest)
        bars.keep({name: Path(name)})
    assert [task.description for task in bars._progress.tasks] == names[5:]
