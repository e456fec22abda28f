"""What the machine does is in the run's MLflow run, if MLflow's own variable asks for it."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

from derain.errors import UsageError
from derain.pipelines.watching import system_metrics as module
from derain.pipelines.watching.system_metrics import INTERVAL, SWITCH, sample, system_metrics
from derain.tracking.runs import RunLog


def test_a_sample_has_the_use_of_this_machine_under_mlflows_names() -> None:
    sample()
    found = sample()
    assert {"system/cpu_utilization_percentage", "system/disk_available_megabytes"} <= found.keys()
    assert all(isinstance(value, float) for value in found.values())
    shares = [value for name, value in found.items() if name.endswith("_percentage")]
    assert len(shares) >= 3
    assert all(0 <= share <= 100 for share in shares)


def test_nothing_is_sampled_unless_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(module, "sample", lambda: pytest.fail("sampled"))
    with system_metrics(lambda _: None):
        pass


def test_samples_are_recorded_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "true")
    monkeypatch.setenv(INTERVAL, "0.01")
    found: list[Mapping[str, float]] = []
    enough = threading.Event()

    def record(values: Mapping[str, float]) -> None:
        found.append(values)
        if len(found) == 3:
            enough.set()

    with system_metrics(record):
        assert enough.wait(60)
    count = len(found)
    time.sleep(0.1)
    assert len(found) == count
    assert all("system/cpu_utilization_percentage" in values for values in found)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_an_interval_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(SWITCH, "true")
    monkeypatch.setenv(INTERVAL, text)
    with pytest.raises(UsageError, match=INTERVAL), system_metrics(lambda _: None):
        pass


def test_mlflow_has_them_under_the_newest_step(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "true")
    monkeypatch.setenv(INTERVAL, "0.05")
    with RunLog("watched", uri=store, outbox=tmp_path) as record:
        record.metrics(7, {"loss": 0.5})
        with system_metrics(record.system_metrics):
            time.sleep(0.5)
    name = "system/cpu_utilization_percentage"
    points = MlflowClient(tracking_uri=store).get_metric_history(record.run_id, name)
    assert points
    assert {point.step for point in points} == {7}
