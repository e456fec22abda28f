"""docs/guides/team_store.md, with its own commands: a store that a team shares.

PostgreSQL is Debian's. The S3 store is moto's server, which keeps everything in memory and asks for
no key, so what a real one does is not tried here.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

import derain
from derain.pipelines.train.metrics_file import read_metrics
from derain.pipelines.train.run_folder import IDENTITY, read_json
from tests.commands import FENCED
from tests.processes import answers, command_line, free_port, kill_group, wait_for
from tests.repository import ROOT
from tests.soak.postgres import Postgres
from tests.soak.stack import BIN, result_of, start, step_of, stop, write_config

PAGE = ROOT / "docs" / "guides" / "team_store.md"
BUILT = ROOT / "build" / "mlflow-server"
"""The server's virtual environment, which takes minutes to make; made once."""
TRIALS, STEPS = 8, 200
OUTAGE_S = 60.0
PEOPLE = ("ann", "bob")


def commands(heading: str) -> list[str]:
    """The lines of the first block of commands under a heading of the page."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    block = next(block for language, block in FENCED.findall(text) if not language)
    return block.splitlines()


class Team:
    """PostgreSQL, S3, and servers that the page's commands start."""

    def __init__(self, folder: Path, home: Path, postgres: Postgres, s3: str) -> None:
        self.folder, self.postgres, self._s3 = folder, postgres, s3
        self._home = home
        self.password = secrets.token_hex(16)
        self._keys = {"AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
        self._keys["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secrets.token_hex(32)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.people = {name: secrets.token_hex(16) for name in PEOPLE}
        self.secrets = [self.password, postgres.password, *self._keys.values()]
        self.secrets += self.people.values()

    def install(self) -> None:
        python, pip = commands("Start it")[2:4]
        if not (BUILT / "bin" / "mlflow").exists():
            BUILT.parent.mkdir(exist_ok=True)
            for line in (python, pip):
                self.call(line, HOME=str(BUILT.parent))
        (self._home / "mlflow-server").symlink_to(BUILT)

    def serve(self, database: str, artifacts: str) -> str:
        """Start a server as the page says; returns its address without a password."""
        self.postgres.create_database(database)
        port = free_port()
        values = {"PORT": port, "ALLOWED_HOSTS": f"127.0.0.1:{port}", "ARTIFACTS": artifacts}
        values |= {"PGPORT": self.postgres.port, "PGPASSWORD": self.postgres.password}
        values |= {"PGDATABASE": database, "AWS_ENDPOINT_URL": self._s3, **self._keys}
        values |= {"MLFLOW_AUTH_ADMIN_PASSWORD": self.password}
        install, edit, server = commands("Start it")[-3:]
        self.call(install)
        settings = self._home / "mlflow.settings"
        assert settings.stat().st_mode & 0o777 == 0o600
        assert edit.startswith("$EDITOR ")
        text = settings.read_text()
        for name, value in values.items():
            text, found = re.subn(f"^{name}=.*$", f"{name}={value}", text, flags=re.M)
            assert found == 1, name
        settings.write_text(text)
        with (self.folder / "server.txt").open("a") as log:
            process = subprocess.Popen(
                ["bash", "-c", server], cwd=ROOT, env=self._environment(),
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{address}/health"), process=process)
        for name, password in self.people.items():
            self.create_account(address, name, password)
        return address

    def create_account(self, address: str, name: str, password: str) -> None:
        key = base64.b64encode(f"admin:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json"}
        body = json.dumps({"username": name, "password": password}).encode()
        request = urllib.request.Request(
            f"{address}/api/2.0/mlflow/users/create", data=body, headers=headers
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def with_password(self, address: str, name: str) -> str:
        return address.replace("://", f"://{name}:{self.people[name]}@")

    def call(self, line: str, *, cwd: Path = ROOT, **environment: str) -> str:
        return subprocess.run(
            ["bash", "-c", line], cwd=cwd, env={**self._environment(), **environment},
            check=True, text=True, stdout=subprocess.PIPE,
        ).stdout  # fmt: skip

    def end(self) -> None:
        for process in self._processes:
            kill_group(process)

    def _environment(self) -> dict[str, str]:
        kept = {
            name: os.environ[name]
            for name in ("PATH", "PYTHONPATH", "TMPDIR")
            if name in os.environ
        }
        return {**kept, "HOME": str(self._home)}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with contextlib.ExitStack() as started:
        postgres = Postgres()
        started.callback(postgres.remove)
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        s3.start()
        started.callback(s3.stop)
        host, port = s3.get_host_and_port()
        bucket = http.client.HTTPConnection(host, port)
        bucket.request(
            "PUT", "/mlflow", headers={"Authorization": "AWS4 any/20260101/us-east-1/s3/"}
        )
        assert bucket.getresponse().status == 200
        home = tmp_path_factory.mktemp("home")
        team = Team(tmp_path_factory.mktemp("team"), home, postgres, f"http://{host}:{port}")
        started.callback(team.end)
        team.install()
        yield team


@pytest.fixture(scope="module")
def address(team: Team) -> str:
    return team.serve("mlflow", "s3://mlflow")


@pytest.fixture
def rays() -> Iterator[Path]:
    """For the files of a Ray: pytest's own folders have too long a path for its sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class CommandLines:
    """All command lines of this machine, looked at again and again during a block."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.2):
            pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
            self.seen.update(map(command_line, pids))

    def __enter__(self) -> "CommandLines":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def points_once(run: Path, uri: str) -> int:
    """The store has each of the run's losses, and has it once; returns how many."""
    run_id = read_json(run / IDENTITY)["run_id"]
    history = MlflowClient(tracking_uri=uri).get_metric_history(run_id, "loss")
    losses = {step: metrics["loss"] for step, metrics in read_metrics(run).items()}
    assert sorted((point.step, point.value) for point in history) == sorted(losses.items())
    return len(history)


def holding(folder: Path, words: list[str]) -> list[str]:
    """Files below a folder that have one of the words, also pickled as text."""
    wanted = [word.encode() for word in words]
    wanted += [word.hex().encode() for word in wanted]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [str(path) for word in wanted if word in content]
    return found


def test_eight_trials_at_once_lose_nothing_and_no_password_is_written(
    team: Team, address: str, rays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob's sweep goes into the experiment that Ann has made; his address has his password."""
    MlflowClient(tracking_uri=team.with_password(address, "ann")).create_experiment("derain")
    uri = team.with_password(address, "bob")
    config = write_config(tmp_path, steps=STEPS, log_every_steps=1, ledger=False)
    tree = yaml.safe_load(config.read_text())
    rates = {f"rate-{number}": 1e-4 * (number + 1) for number in range(TRIALS)}
    tree["sweep"] = {"space": {"train.lr": {"grid": rates}}, "concurrent": TRIALS, "cohort": "off"}
    tree["register"] = {"name": "team"}
    config.write_text(yaml.safe_dump(tree))
    own = {"RAY_TMPDIR": str(rays), "RAY_OVERRIDE_RESOURCES": f'{{"CPU": {TRIALS}}}'}
    with CommandLines() as lines:
        found = result_of(start("sweep", config, MLFLOW_TRACKING_URI=uri, **own))
    (tmp_path / "result.json").write_text(json.dumps(found))
    folders = [tmp_path / "runs" / "run" / name for name in rates]
    assert [points_once(folder, uri) for folder in folders] == [STEPS] * TRIALS
    client = MlflowClient(tracking_uri=uri)
    runs = [client.get_run(read_json(folder / IDENTITY)["run_id"]) for folder in folders]
    assert {run.info.artifact_uri.partition(":")[0] for run in runs} == {"mlflow-artifacts"}
    assert all(client.list_artifacts(run.info.run_id) for run in runs)
    together = min(run.info.end_time for run in runs) - max(run.info.start_time for run in runs)
    print(f"\n{TRIALS} trials, {together / 1000:.0f} s at once: {TRIALS * STEPS} losses, once each")
    assert together > 0

    assert found["registered"]["version"] == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    registered = derain.load(f"models:/{found['registered']['name']}@champion")(image)
    checkpoints = (tmp_path / "runs" / "run" / found["best"]).glob("checkpoints/step-*")
    best = derain.load(str(max(checkpoints)))(image)
    assert np.array_equal(registered, best)

    written = [
        path for place in (tmp_path, rays, team.folder) for path in holding(place, team.secrets)
    ]
    assert written == []
    assert [line for line in lines.seen if any(word in line for word in team.secrets)] == []
    recorded = json.dumps([run.to_dictionary() for run in client.search_runs(["1"])], default=str)
    assert "rate-0" in recorded
    assert not any(word in recorded for word in team.secrets)


def test_the_database_is_killed_and_comes_back(team: Team, address: str, tmp_path: Path) -> None:
    own = {"MLFLOW_TRACKING_URI": team.with_password(address, "ann")}
    config, run = write_config(tmp_path, steps=10**6, log_every_steps=5), tmp_path / "runs" / "run"
    process = start("train", config, **own)
    wait_for(lambda: step_of(run) >= 40, 600, process=process)
    team.postgres.kill()
    before, ends = step_of(run), time.monotonic() + OUTAGE_S
    wait_for(lambda: time.monotonic() > ends, process=process)
    meanwhile = step_of(run) - before
    team.postgres.start()
    after = step_of(run)
    wait_for(lambda: step_of(run) >= after + 40, 600, process=process)
    steps = stop(process, run) + 10
    again = ("--resume", "run", "--set", f"train.steps={steps}")
    assert result_of(start("train", config, *again, **own))["steps"] == steps
    points = points_once(run, team.with_password(address, "ann"))
    print(f"\n{OUTAGE_S:.0f} s without the database: {meanwhile} steps, all {points} points once")
    assert meanwhile > 0
    assert holding(tmp_path, team.secrets) == []
    assert holding(team.folder, team.secrets) == []


def test_a_sqlite_store_moves_there(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, steps=40, checkpoint_every_steps=40, log_every_steps=1)
    tree = yaml.safe_load(config.read_text())
    tree["sweep"] = {"space": {"train.lr": {"grid": [1e-4, 1e-3]}}, "concurrent": 2}
    tree["register"] = {"name": "team"}
    config.write_text(yaml.safe_dump(tree))
    found = result_of(start("sweep", config))
    address = team.serve("moved", "s3://mlflow/moved")
    path, upgrade, copy = commands("Move a sqlite store there")
    copy = copy.replace("clusters/", f"{ROOT}/clusters/")
    printed = team.call("\n".join((path, upgrade, copy)), cwd=tmp_path)
    print(f"\n{' '.join(printed.split())}")
    model, outputs = f"models:/{found['registered']['name']}@champion", []
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    moved = team.with_password(address, "ann")
    for uri in (f"sqlite:///{tmp_path}/mlflow.db", moved):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        outputs.append(derain.load(model)(image))
    assert np.array_equal(*outputs)
    for trial in found["trials"]:
        assert points_once(tmp_path / "runs" / "run" / trial["name"], moved) == 40
    assert runs_of(moved) == runs_of(f"sqlite:///{tmp_path}/mlflow.db")
    assert MlflowClient(tracking_uri=moved).create_experiment("another")  # numbered after the rest
    account = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": team.people["ann"]}
    listed = team.call(
        f"{BIN}/derainctl models", cwd=tmp_path, MLFLOW_TRACKING_URI=address, **account
    )
    assert found["registered"]["name"] in listed


def runs_of(uri: str) -> list[dict[str, Any]]:
    """All that the store has of each run, but for where its artifacts are."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("derain").experiment_id
    runs = [run.to_dictionary() for run in client.search_runs([experiment])]
    for run in runs:
        del run["info"]["artifact_uri"]
    return sorted(runs, key=lambda run: run["info"]["run_id"])
