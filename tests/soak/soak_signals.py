"""SIGTERM to every process of a job at once, as Slurm, systemd and containers send it."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from derain.tune.journal import read
from tests.processes import descendants, wait_for
from tests.soak.stack import ledger, result_of, start, start_train, step_of, write_config

SLURM_WAITS_S = 30
"""Slurm's default between SIGTERM and SIGKILL."""
PATIENCE_S = 900
"""For a start that takes half a minute on a machine that does nothing else."""


def ask_all(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to a process and to all below it, the deepest first."""
    for pid in sorted({process.pid, *descendants(process.pid)}, reverse=True):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def statuses(folder: Path) -> dict[str, str]:
    """The MLflow runs by name."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("derain").experiment_id])
    return {run.info.run_name: run.info.status for run in found}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_saves_and_says_how_to_go_on(tmp_path: Path, workers: int) -> None:
    values = {"checkpoint_every_steps": 10**6, "num_workers": workers}
    config, run = write_config(tmp_path, steps=10**6, **values), tmp_path / "runs" / "run"
    own = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}
    process = start_train(config, **own)
    wait_for(lambda: ledger(run), PATIENCE_S, process=process)
    ask_all(process)
    seconds = wait_for(lambda: process.poll() is not None)
    print(f"\n{workers} workers: saved step {step_of(run)} and ended after {seconds:.0f} s")
    assert process.returncode == 143
    assert seconds < SLURM_WAITS_S
    assert "Continue with --resume run" in (tmp_path / "log").read_text()
    assert statuses(tmp_path) == {"run": "KILLED"}
    step = step_of(run)
    assert step > 0
    longer = ("--resume", "run", "--set", f"train.steps={step + 5}")
    assert result_of(start_train(config, *longer, **own))["resumed_from_step"] == step
    assert statuses(tmp_path) == {"run": "FINISHED"}


def test_a_run_that_waits_for_machines_ends_at_once(tmp_path: Path) -> None:
    """Two workers on a cluster with room for one: nothing is saved, as nothing was trained."""
    config = write_config(tmp_path, steps=10**6, num_workers=2)
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        process = start_train(config, RAY_ADDRESS=cluster.address)
        log = tmp_path / "log"
        wait_for(lambda: "ray: waiting for" in log.read_text(), PATIENCE_S, process=process)
        process.send_signal(signal.SIGTERM)
        seconds = wait_for(lambda: process.poll() is not None)
    finally:
        cluster.shutdown()
    print(f"\na run that waited for a machine ended after {seconds:.0f} s")
    assert process.returncode == 143
    assert seconds < SLURM_WAITS_S
    assert statuses(tmp_path) == {"run": "KILLED"}


def test_a_sweep_ends_and_says_how_to_go_on(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=3000, checkpoint_every_steps=50)
    tree = yaml.safe_load(config.read_text())
    space = {"train.lr": {"grid": {"low": 1e-4, "high": 1e-3}}}
    tree["sweep"] = {"space": space, "concurrent": 2, "cohort": "off"}
    config.write_text(yaml.safe_dump(tree))
    own = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}
    process = start("sweep", config, **own)
    sweep = tmp_path / "runs" / "run"
    wait_for(
        lambda: step_of(sweep / "low") and step_of(sweep / "high"), PATIENCE_S, process=process
    )
    ask_all(process)
    seconds = wait_for(lambda: process.poll() is not None)
    print(f"\na sweep ended after {seconds:.0f} s")
    assert process.returncode == 143
    assert seconds < SLURM_WAITS_S
    assert "Continue with --resume run" in (tmp_path / "log").read_text()
    assert set(statuses(tmp_path).values()) == {"KILLED"}
    found = result_of(start("sweep", config, "--resume", "run", **own))
    assert [trial["status"] for trial in found["trials"]] == ["finished", "finished"]
    assert set(statuses(tmp_path).values()) == {"FINISHED"}
    assert sum(event["event"] == "resumed" for event in read(sweep)) == 1
