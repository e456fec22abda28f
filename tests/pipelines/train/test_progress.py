"""Progress is read from the metrics files of runs and logged as lines without a terminal."""

import logging
import time
from pathlib import Path

import pytest

from derain.pipelines.train.metrics_file import append_metrics
from derain.pipelines.train.progress import show_progress


def append(folder: Path, step: int, loss: float) -> None:
    append_metrics(folder, step, {"loss": loss, "train_psnr": 21.5, "steps_per_s": 2.0})


def test_lines_name_the_run_and_its_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    folders = {name: tmp_path / name for name in ("first", "second", "waiting")}
    for name in ("first", "second"):
        folders[name].mkdir()
    with show_progress(folders, steps=3):
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
    with show_progress({"long": tmp_path}, steps=1000):
        pass
    assert "long: step 1000/1000, 21.50 dB on crops, loss 0.0010" in caplog.text
    assert caplog.text.count("long: step") == 1
