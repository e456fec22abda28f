"""metrics.jsonl: appended, read back by step, and rewound when a run resumes."""

from pathlib import Path

import pytest

from derain.pipelines.train.metrics_file import (
    METRICS_FILE,
    append_metrics,
    read_metrics,
    rewind_metrics,
)
from tests.processes import room_for


def append(folder: Path, step: int, loss: float) -> None:
    append_metrics(folder, step, {"loss": loss, "steps_per_s": 2.0})


def test_the_later_metrics_of_a_repeated_step_count(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}
    for step, loss in ((1, 0.5), (2, 0.4), (2, 0.3)):
        append(tmp_path, step, loss)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 3, "lo')  # a line that is being written
    assert {step: metrics["loss"] for step, metrics in read_metrics(tmp_path).items()} == {
        1: 0.5,
        2: 0.3,
    }


def test_a_line_torn_by_a_kill_is_skipped(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "lo\n{"step": 3}\n')
    assert sorted(read_metrics(tmp_path)) == [1, 3]


def test_a_disk_that_fills_up_leaves_no_half_line(tmp_path: Path) -> None:
    append(tmp_path, 1, 0.5)
    size = (tmp_path / METRICS_FILE).stat().st_size
    with room_for(size + 10), pytest.raises(OSError, match="too large"):
        append(tmp_path, 2, 0.4)
    assert (tmp_path / METRICS_FILE).stat().st_size == size
    append(tmp_path, 2, 0.3)
    assert [metrics["loss"] for metrics in read_metrics(tmp_path).values()] == [0.5, 0.3]


def test_metrics_after_the_resumed_step_are_removed(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        append(tmp_path, step, 0.5)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "lo')
    rewind_metrics(tmp_path, 2)
    append(tmp_path, 3, 0.25)
    assert {step: metrics["loss"] for step, metrics in read_metrics(tmp_path).items()} == {
        1: 0.5,
        2: 0.5,
        3: 0.25,
    }
    rewind_metrics(tmp_path, 0)
    assert read_metrics(tmp_path) == {}
