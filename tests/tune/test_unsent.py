"""Records of trials that the store has not got: the sweep says so, and `sync` sends them all."""

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from derain.cli.tracking import sync
from derain.tracking import runs
from derain.tracking.outbox import OUTBOX_FOLDER
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store
from derain.tune import space
from derain.tune.sweep import _end_children, _warn_of_unsent
from tests.processes import free_port
from tests.tune.simulated import LR, config


def test_the_sweep_names_its_trials_and_sync_takes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(runs, "END_WAITS_S", 0.2)
    prepare_store()
    planned = config(LR, "random", samples=3).replaced({"output_dir": str(tmp_path)}, "test")
    trials = space.plan(planned)
    database = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    with RunLog("trial", uri=uri, outbox=trials[1].config.folder / OUTBOX_FOLDER) as run:
        assert run.flush(timeout_s=60)
        database.execute("BEGIN EXCLUSIVE")
        run.metrics(1, {"loss": 0.5})
    database.execute("ROLLBACK")
    database.close()
    caplog.clear()
    _warn_of_unsent(planned, trials)
    assert f"all records of 1 trial ({trials[1].name})" in caplog.text
    assert f"derainctl sync {planned.folder}" in caplog.text
    monkeypatch.setattr(runs, "END_WAITS_S", 60)
    sync([planned.folder])
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.run_id, "loss")
    assert [point.step for point in history] == [1]
    caplog.clear()
    _warn_of_unsent(planned, trials)
    assert not caplog.text


def test_a_store_that_is_away_in_the_end_is_named_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _end_children("a" * 32, f"http://ann:27182818284590@127.0.0.1:{free_port()}")
    assert "keep their status" in caplog.text
    assert "27182818284590" not in caplog.text
