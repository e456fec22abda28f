"""The MLflow store is unreachable for a minute, or eight trials write to it at once.

Afterwards the store has every metric that the runs wrote into their own folders.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from mlflow import MlflowClient

from derain.pipelines.train.metrics_file import read_metrics
from derain.pipelines.train.run_folder import IDENTITY, read_json
from tests.processes import answers, free_port, kill_group, wait_for
from tests.soak.stack import BIN, result_of, start_train, step_of, stop, write_config

OUTAGE_S = 60.0
TRIALS, STEPS = 8, 500
Outage = Callable[[], contextlib.AbstractContextManager[None]]


def database(folder: Path) -> Path:
    return folder / "mlflow.db"


def assert_store_is_complete(run: Path, uri: str) -> int:
    """Compare the store with the run's own metrics file; return the number of points."""
    history = MlflowClient(tracking_uri=uri).get_metric_history(
        read_json(run / IDENTITY)["run_id"], "loss"
    )
    losses = {step: metrics["loss"] for step, metrics in read_metrics(run).items()}
    assert {point.step: point.value for point in history} == losses
    return len(losses)


class Server:
    """`mlflow server` on an SQLite file; it can be killed and restarted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers=1"]
        command += ["--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{database(self._folder)}"]
        with (self._folder / "server.txt").open("a") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(lambda: answers(f"{self.uri}/health"), process=process)
        return process

    def kill(self) -> None:
        kill_group(self._process)

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        self.kill()
        yield
        self._process = self._start()


def survive(folder: Path, uri: str, outage: Outage) -> None:
    """A run continues while its store is unreachable, and in the end the store has everything."""
    config, run = write_config(folder, steps=10**6, log_every_steps=5), folder / "runs" / "run"
    process = start_train(config, MLFLOW_TRACKING_URI=uri)
    wait_for(lambda: step_of(run) >= 40)
    with outage():
        before, ends = step_of(run), time.monotonic() + OUTAGE_S
        wait_for(lambda: time.monotonic() > ends)
        meanwhile = step_of(run) - before
    after = step_of(run)
    wait_for(lambda: step_of(run) >= after + 40)
    steps = stop(process, run) + 10
    last = ("--resume", "run", "--set", f"train.steps={steps}")
    assert result_of(start_train(config, *last, MLFLOW_TRACKING_URI=uri))["steps"] == steps
    points = assert_store_is_complete(run, uri)
    assert meanwhile > 40
    print(
        f"\noutage of {OUTAGE_S:.0f} s: {meanwhile} steps meanwhile, all {points} points are there"
    )


def test_a_server_outage_of_a_minute(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        survive(tmp_path, server.uri, server.outage)
    finally:
        server.kill()


def test_an_sqlite_file_locked_for_a_minute(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as file:
            file.execute("PRAGMA busy_timeout = 60000")
            file.execute("BEGIN EXCLUSIVE")
            yield
            file.execute("ROLLBACK")

    survive(tmp_path, f"sqlite:///{database(tmp_path)}", locked)


def test_eight_trials_write_to_one_file_at_once(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=STEPS, log_every_steps=1, ledger=False)
    tree = yaml.safe_load(config.read_text())
    rates = {f"rate-{number}": 1e-4 * (number + 1) for number in range(TRIALS)}
    tree["sweep"] = {"space": {"train.lr": {"grid": rates}}, "concurrent": TRIALS, "cohort": "off"}
    config.write_text(yaml.safe_dump(tree))
    uri = f"sqlite:///{database(tmp_path)}"
    own = {"MLFLOW_TRACKING_URI": uri, "DERAIN_CACHE_DIR": str(tmp_path / "cache")}
    own["RAY_OVERRIDE_RESOURCES"] = f'{{"CPU": {TRIALS}}}'  # on any number of cores
    command = [BIN / "derainctl", "sweep", config.name, "--json"]
    subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **own}, check=True, stdout=subprocess.DEVNULL
    )
    folders = [tmp_path / "runs" / "run" / name for name in rates]
    assert [assert_store_is_complete(folder, uri) for folder in folders] == [STEPS] * TRIALS
    client = MlflowClient(tracking_uri=uri)
    times = [client.get_run(read_json(folder / IDENTITY)["run_id"]).info for folder in folders]
    together = min(run.end_time for run in times) - max(run.start_time for run in times)
    print(
        f"\n{TRIALS} trials, {together / 1000:.0f} s at once: all {TRIALS * STEPS} losses are there"
    )
    assert together > 0
