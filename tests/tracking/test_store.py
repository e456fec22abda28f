"""The store's address, its creation by several processes at once, and its failures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from derain.errors import StorageError, UsageError
from derain.tracking import champions, registry, store
from derain.tracking.runs import RunLog
from tests.tracking.samples import POINTS, PROCESSES


def test_all_metrics_of_all_processes_are_recorded(
    writers: dict[str, Any], client: MlflowClient
) -> None:
    for out, _ in writers["outputs"]:
        run_id = json.loads(out)["run_id"]
        history = client.get_metric_history(run_id, "psnr_y")
        assert sorted((p.step, p.value) for p in history) == [(s, float(s)) for s in range(POINTS)]
        assert len(client.get_metric_history(run_id, "loss")) == POINTS
        assert client.get_run(run_id).info.status == "FINISHED"


def test_mlflow_prints_nothing_to_stdout(writers: dict[str, Any]) -> None:
    for out, errors in writers["outputs"]:
        assert list(json.loads(out)) == ["run_id"]
        assert "alembic" not in errors


def test_artifacts_are_next_to_the_database_whatever_the_working_directory(
    writers: dict[str, Any],
) -> None:
    notes = list(writers["root"].rglob("note.txt"))
    assert len(notes) == PROCESSES
    assert all(note.is_relative_to(writers["root"] / "store" / "mlruns") for note in notes)
    left = [path for folder in writers["folders"] for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in left} == {"stdout", "stderr"}


def test_the_uri_comes_from_the_environment_or_is_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///deeper/runs.db")
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/deeper/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert store.tracking_uri() == "https://mlflow.example.org"


def test_an_unusable_store_is_named_without_its_password() -> None:
    with pytest.raises(UsageError, match=r"no-such-scheme.*MLFLOW_TRACKING_URI"):
        store.prepare_store("no-such-scheme://user:secret@host/db")
    with pytest.raises(UsageError) as raised:
        store.prepare_store("no-such-scheme://user:secret@host/db")
    assert "secret" not in str(raised.value)
    with pytest.raises(StorageError, match=r"/dev/null/runs\.db cannot be used"):
        store.prepare_store("sqlite:////dev/null/runs.db")


def test_an_unreachable_server_is_not_reported_as_a_missing_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for ask in (
        lambda: registry.models(away),
        lambda: champions.promote("net", 1, uri=away),
        lambda: registry.model_folder("models:/net@champion", away),
        lambda: store.find_run(store.client_of(away), away, "a-run"),
        lambda: RunLog("away", uri=away).__enter__(),
    ):
        with pytest.raises(StorageError, match=r"127\.0\.0\.1:9 cannot be used.*TRACKING_URI"):
            ask()


def test_importing_derain_tracking_does_not_import_mlflow() -> None:
    modules = "sys, derain.tracking.runs, derain.tracking.registry"
    code = f"import {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_no_address_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@[::1")
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI is not an address") as raised:
        store.tracking_uri()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "uri", ["sqlite://", "sqlite:///:memory:", "sqlite://mlflow.db", "SQLITE:///a"]
)
def test_a_store_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """Its records would be lost, after the minutes that a run waits for a store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UsageError, match="expected sqlite:/// and the path of a file"):
        store.tracking_uri()


def test_a_pipe_is_no_store(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mlflow.db")
    with pytest.raises(StorageError, match="is not a file"):
        store.prepare_store(f"sqlite:///{tmp_path}/mlflow.db")
