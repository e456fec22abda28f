"""Progress: read from the figures that runs append, shown as lines where there is no terminal."""

import logging
import time
from pathlib import Path

import pytest

from derain.pipelines.train.progress import (
    METRICS_FILE,
    read_metrics,
    rewind_metrics,
    watch,
    write_metrics,
)


def append(folder: Path, step: int, loss: float) -> None:
    write_metrics(folder, step, {"loss": loss, "steps_per_s": 2.0})


def test_of_a_step_that_was_done_twice_the_later_figures_count(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}
    for step, loss in ((1, 0.5), (2, 0.4), (2, 0.3)):
        append(tmp_path, step, loss)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 3, "lo')  # a line that is being written
    assert {step: figures["loss"] for step, figures in read_metrics(tmp_path).items()} == {
        1: 0.5,
        2: 0.3,
    }


def test_lines_name_the_run_and_its_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    folders = {name: tmp_path / name for name in ("first", "second", "waiting")}
    for name in ("first", "second"):
        folders[name].mkdir()
    with watch(folders, steps=3):
        append(folders["first"], 1, 0.25)
        deadline = time.monotonic() + 10
        while "first" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        append(folders["first"], 3, 0.125)
        append(folders["second"], 2, 0.5)
    assert "first: step 1/3, loss 0.2500, 2.0 steps/s" in caplog.text
    assert "first: step 3/3, loss 0.1250" in caplog.text  # the last one, however soon
    assert "second: step 2/3" in caplog.text
    assert "waiting" not in caplog.text


def test_a_line_that_a_kill_has_torn_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "lo\n{"step": 3}\n')
    assert sorted(read_metrics(tmp_path)) == [1, 3]


def test_the_newest_step_of_a_long_run_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    for step in range(1, 1001):
        append(tmp_path, step, 1 / step)
    with watch({"long": tmp_path}, steps=1000):
        pass
    assert "long: step 1000/1000, loss 0.0010" in caplog.text
    assert caplog.text.count("long: step") == 1


def test_what_is_done_again_is_struck(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        append(tmp_path, step, 0.5)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "lo')
    rewind_metrics(tmp_path, 2)
    append(tmp_path, 3, 0.25)
    assert {step: found["loss"] for step, found in read_metrics(tmp_path).items()} == {
        1: 0.5,
        2: 0.5,
        3: 0.25,
    }
    rewind_metrics(tmp_path, 0)
    assert read_metrics(tmp_path) == {}
