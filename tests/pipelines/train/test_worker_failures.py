"""Failures of workers: expected errors are found in what Ray raises, and noted for the driver."""

import contextlib
import json
from pathlib import Path

import pytest

from derain.errors import DataError, StoppedError, WeightsError
from derain.pipelines.train import worker_failures
from derain.pipelines.train.worker_failures import FAILURE, expected_error
from derain.training.process.interrupt import request_stop


def test_an_expected_error_is_found_among_the_causes() -> None:
    expected = WeightsError("missing")
    wrapped = RuntimeError("a worker failed")
    wrapped.__cause__ = ValueError("a task failed")
    wrapped.__cause__.__cause__ = expected
    assert expected_error(wrapped) is expected
    assert expected_error(RuntimeError("something else")) is None


@pytest.mark.parametrize("world", [1, 2])
def test_an_expected_error_reaches_the_driver_through_the_folder(
    tmp_path: Path, world: int
) -> None:
    """One worker ends as if it had succeeded; of several, Ray must end the others."""
    fails = pytest.raises(DataError) if world > 1 else contextlib.nullcontext()
    with fails, worker_failures.noting_expected_errors(tmp_path, world):
        raise DataError("a shard is missing")
    assert worker_failures.is_noted(tmp_path)
    assert json.loads((tmp_path / FAILURE).read_text())["kind"] == "DataError"
    with pytest.raises(DataError, match="a shard is missing"):
        worker_failures.raise_noted(tmp_path, "one")
    worker_failures.forget(tmp_path)
    worker_failures.raise_noted(tmp_path, "one")


def test_a_stopped_run_is_not_a_failure(tmp_path: Path) -> None:
    request_stop(tmp_path)
    with worker_failures.noting_expected_errors(tmp_path, world=2):
        raise StoppedError("saved")
    assert not worker_failures.is_noted(tmp_path)
    with pytest.raises(StoppedError, match="--resume one"):
        worker_failures.raise_noted(tmp_path, "one")
