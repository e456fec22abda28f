"""The MLflow store is away for a minute under a run, or eight trials write to it at once: every
figure that the run wrote into its own folder is in the store afterwards."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from mlflow import MlflowClient

from derain.pipelines.train.progress import read_metrics
from derain.pipelines.train.run import IDENTITY, read_json
from tests.soak.stack import BIN, driver, result_of, step_of, wait_for, written_config

AWAY_S = 60.0
TRIALS, STEPS = 8, 500
Outage = Callable[[], contextlib.AbstractContextManager[None]]


def database(folder: Path) -> Path:
    return folder / "mlflow.db"


def assert_all_is_there(run: Path, uri: str) -> int:
    """Compare the store with the run's own file; returns how many points there are."""
    history = MlflowClient(tracking_uri=uri).get_metric_history(
        read_json(run / IDENTITY)["run_id"], "loss"
    )
    losses = {step: figures["loss"] for step, figures in read_metrics(run).items()}
    assert {point.step: point.value for point in history} == losses
    return len(losses)


class Server:
    """`mlflow server` on a sqlite file, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers=1"]
        command += ["--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{database(self._folder)}"]
        with (self._folder / "server.txt").open("a") as told:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=told, stderr=told, start_new_session=True
            )
        wait_for(self._answers)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self.kill()
        yield
        self.start()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health") as answer:
            return answer.status == 200
        return False


def survive(folder: Path, uri: str, outage: Outage) -> None:
    """A run goes on while its store is away, and ends with all in it."""
    config, run = written_config(folder, steps=10**6, log_every_steps=5), folder / "runs" / "run"
    process = driver(config, MLFLOW_TRACKING_URI=uri)
    wait_for(lambda: step_of(run) >= 40)
    with outage():
        before, ends = step_of(run), time.monotonic() + AWAY_S
        wait_for(lambda: time.monotonic() > ends)
        meanwhile = step_of(run) - before
    after = step_of(run)
    wait_for(lambda: step_of(run) >= after + 40)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 143
    steps = step_of(run) + 10
    last = ("--resume", "run", "--set", f"train.steps={steps}")
    assert result_of(driver(config, *last, MLFLOW_TRACKING_URI=uri))["steps"] == steps
    points = assert_all_is_there(run, uri)
    assert meanwhile > 40
    print(f"\naway for {AWAY_S:.0f} s: {meanwhile} steps meanwhile, {points} points, all there")


def test_a_server_that_is_away_for_a_minute(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        survive(tmp_path, server.uri, server.away)
    finally:
        server.kill()


def test_a_file_that_is_locked_for_a_minute(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as file:
            file.execute("PRAGMA busy_timeout = 60000")
            file.execute("BEGIN EXCLUSIVE")
            yield
            file.execute("ROLLBACK")

    survive(tmp_path, f"sqlite:///{database(tmp_path)}", locked)


def test_eight_trials_at_once_on_one_file(tmp_path: Path) -> None:
    config = written_config(tmp_path, steps=STEPS, log_every_steps=1, ledger=False)
    tree = yaml.safe_load(config.read_text())
    rates = {f"rate-{number}": 1e-4 * (number + 1) for number in range(TRIALS)}
    tree["sweep"] = {"space": {"train.lr": {"grid": rates}}, "concurrent": TRIALS, "cohort": "off"}
    config.write_text(yaml.safe_dump(tree))
    uri = f"sqlite:///{database(tmp_path)}"
    own = {"MLFLOW_TRACKING_URI": uri, "DERAIN_CACHE_DIR": str(tmp_path / "cache")}
    own["RAY_OVERRIDE_RESOURCES"] = f'{{"CPU": {TRIALS}}}'  # whatever cores there are
    command = [BIN / "derainctl", "sweep", config.name, "--json"]
    subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **own}, check=True, stdout=subprocess.DEVNULL
    )
    folders = [tmp_path / "runs" / "run" / name for name in rates]
    assert [assert_all_is_there(folder, uri) for folder in folders] == [STEPS] * TRIALS
    client = MlflowClient(tracking_uri=uri)
    times = [client.get_run(read_json(folder / IDENTITY)["run_id"]).info for folder in folders]
    together = min(run.end_time for run in times) - max(run.start_time for run in times)
    print(f"\n{TRIALS} trials, {together / 1000:.0f} s at once: {TRIALS * STEPS} losses, all there")
    assert together > 0
