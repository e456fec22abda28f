"""Failures of workers: expected errors are found in what Ray raises, and noted for the driver."""

import contextlib
import errno
import json
from pathlib import Path

import pytest

from derain.errors import DataError, StoppedError, StorageError
from derain.pipelines.train import worker_failures
from derain.pipelines.train.worker_failures import FAILURE
from derain.training.process.interrupt import request_stop


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


def test_a_full_disk_ends_the_run_and_a_passing_failure_is_left_to_a_restart(
    tmp_path: Path,
) -> None:
    with worker_failures.noting_expected_errors(tmp_path, world=1):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/metrics.jsonl")
    with pytest.raises(StorageError, match=r"^/data/metrics\.jsonl: No space left on device\."):
        worker_failures.raise_noted(tmp_path, "one")
    worker_failures.forget(tmp_path)
    for passing in (ConnectionResetError(errno.ECONNRESET, "reset"), MemoryError()):
        with pytest.raises(type(passing)), worker_failures.noting_expected_errors(tmp_path, 1):
            raise passing
    assert not worker_failures.is_noted(tmp_path)


def test_a_stopped_run_is_not_a_failure(tmp_path: Path) -> None:
    request_stop(tmp_path)
    with worker_failures.noting_expected_errors(tmp_path, world=2):
        raise StoppedError("saved")
    assert not worker_failures.is_noted(tmp_path)
    with pytest.raises(StoppedError, match="--resume one"):
        worker_failures.raise_noted(tmp_path, "one")
