"""MLflow's page opens at the runs, says when its port is taken, and leaves no process behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from derain.errors import DerainError, UsageError
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store
from derain.tracking.ui import page_of, serve_ui
from tests.processes import descendants, wait_for


@pytest.fixture
def store(tmp_path: Path) -> str:
    return prepare_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_busy_port_is_named_with_the_next_free_one(store: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DerainError, match=rf"Port {port} is in use.*--port \d+") as told:
            serve_ui(port, store)
    assert told.value.exit_code == 1


def test_a_server_has_its_own_page(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its own page"):
        serve_ui(5000, "http://tracking:5000")
    with pytest.raises(UsageError, match="no MLflow store"):
        serve_ui(5000, f"sqlite:///{tmp_path}/none.db")


def test_the_page_of_a_run_names_experiment_and_run(store: str, tmp_path: Path) -> None:
    with RunLog("one", uri=store, outbox=tmp_path / "outbox") as run:
        pass
    page = page_of(run.run_id, store)
    assert page is not None
    address = rf"http://127.0.0.1:5000/#/experiments/\d+/runs/{run.run_id}"
    assert re.fullmatch(rf"{address} \(`derainctl ui` serves it\)", page)
    assert page_of("none", store) is None


@pytest.mark.soak
def test_it_serves_the_runs_and_ends_with_all_its_processes(store: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "derain.cli", "ui", "--port", str(port)]
        served = subprocess.Popen(
            command, env={**os.environ, "MLFLOW_TRACKING_URI": store}, stderr=log
        )
    address = f"http://127.0.0.1:{port}/"

    def answers() -> bool:
        assert served.poll() is None, (tmp_path / "log").read_text()
        try:
            return bool(urllib.request.urlopen(address, timeout=5).status == 200)
        except OSError:
            return False

    wait_for(answers, 120)
    assert f"{address}#/experiments/" in (tmp_path / "log").read_text()
    started = descendants(served.pid)
    assert started
    served.send_signal(signal.SIGTERM)
    assert served.wait(30) == 128 + signal.SIGTERM
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 15)
