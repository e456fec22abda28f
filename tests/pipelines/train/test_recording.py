"""Where runs are recorded: an unavailable store stops new runs, not those that have a record."""

from typing import Any

import pytest

from derain.errors import StorageError
from derain.pipelines.train.recording import TrackingTarget, find_target


def test_an_unavailable_store_is_an_error_for_a_new_run_only(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert find_target(trained.config) == TrackingTarget("http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9 cannot be used"):
        find_target(trained.config.replaced({"name": "new"}, "test"))
