"""clusters/slurm under a real Slurm: a job that is requeued in the middle of a sweep goes on.

Every test trains the same small sweep with the file that users submit, and interrupts it. Its
results must be, to the last digit, those of the sweep that nobody has interrupted.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from derain.tune.journal import read
from tests.processes import command_line, parent_of, wait_for
from tests.repository import ROOT
from tests.soak.raylets import TRAINING
from tests.soak.slurm import NODES, Slurm, slurm
from tests.soak.stack import BIN, SAME, step_of, write_config

FILES = ROOT / "clusters" / "slurm"
RATES = {f"rate-{number}": 1e-4 * number for number in range(1, 5)}
STEPS = 600
PATIENCE_S = 900
"""For what takes a minute on a machine that does nothing else."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_sweep(folder)
    subprocess.run(
        [BIN / "derainctl", "sweep", "config.yaml", "--json"], cwd=folder,
        env={**os.environ, **own(folder), "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'},
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return results(folder)


def write_sweep(folder: Path) -> None:
    tree = yaml.safe_load(write_config(folder, steps=STEPS, checkpoint_every_steps=10).read_text())
    tree["sweep"] = {"space": {"train.lr": {"grid": RATES}}, "concurrent": 2, "cohort": "off"}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))


def own(folder: Path) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "DERAIN_CACHE_DIR": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
    }


def results(folder: Path) -> dict[str, Any]:
    """What must be equal, by trial."""
    found = json.loads((folder / "runs" / "run" / "sweep.json").read_text())
    return {trial["name"]: [trial[key] for key in SAME] for trial in found["trials"]}


def submit(cluster: Slurm, folder: Path, file: str, sbatch: tuple[str, ...], *ours: str) -> str:
    write_sweep(folder)
    words = (*sbatch, "--cpus-per-task=2", str(FILES / file), "config.yaml", "run", *ours)
    return cluster.submit(*words, log=folder / "job.log", environment=own(folder))


def wait_until_two_trials_train(cluster: Slurm, job: str, folder: Path) -> None:
    def two() -> bool:
        assert cluster.state(job) in ("PENDING", "CONFIGURING", "RUNNING"), log_of(folder)
        return len(in_the_middle(folder)) >= 2

    wait_for(two, PATIENCE_S)


def in_the_middle(folder: Path) -> dict[str, int]:
    """The steps of the trials that have begun and not ended."""
    steps = {name: step_of(folder / "runs" / "run" / name) for name in RATES}
    return {name: step for name, step in steps.items() if 0 < step < STEPS}


def wait_until_complete(cluster: Slurm, job: str, folder: Path) -> None:
    running = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
    wait_for(lambda: cluster.state(job) not in running, PATIENCE_S)
    assert cluster.state(job) == "COMPLETED", log_of(folder)


def log_of(folder: Path) -> str:
    return (folder / "job.log").read_text()[-5000:]


def resumptions(folder: Path) -> int:
    return sum(event["event"] == "resumed" for event in read(folder / "runs" / "run"))


def nodes_that_train(job: str) -> set[str]:
    """Slurm's names of the nodes on which processes of the job train."""
    pids = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
    training = [pid for pid in pids if any(name in command_line(pid) for name in TRAINING)]
    environments = [environment_of(parent_of(pid)) for pid in training]  # of the raylets
    return {own["SLURMD_NODENAME"] for own in environments if own.get("SLURM_JOB_ID") == job}


def kill_all(job: str) -> None:
    """`scancel --signal=KILL` would not do: Slurm takes it for a cancellation and warns first."""
    for entry in Path("/proc").glob("[0-9]*"):
        if environment_of(int(entry.name)).get("SLURM_JOB_ID") == job:
            os.kill(int(entry.name), signal.SIGKILL)


def environment_of(pid: int | None) -> dict[str, str]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/environ").read_text(errors="replace")
        return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
    return {}


def test_a_requeued_sweep_goes_on(
    cluster: Slurm, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """As when a job of higher priority takes the nodes: SIGTERM, then the job is in the queue."""
    job = submit(cluster, tmp_path, "sweep.sbatch", ())
    requeue_in_the_middle(cluster, job, tmp_path)
    assert results(tmp_path) == undisturbed


def test_a_sweep_on_two_nodes_goes_on(
    cluster: Slurm, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(
        cluster, tmp_path, "sweep_nodes.sbatch", ("--nodes=2",), "--set", "sweep.concurrent=4"
    )
    wait_until_two_trials_train(cluster, job, tmp_path)
    wait_for(lambda: nodes_that_train(job) == set(NODES), PATIENCE_S)
    requeue_in_the_middle(cluster, job, tmp_path)
    assert results(tmp_path) == undisturbed


def requeue_in_the_middle(cluster: Slurm, job: str, folder: Path) -> None:
    wait_until_two_trials_train(cluster, job, folder)
    begin = time.monotonic()
    cluster.call("scontrol", "requeue", job)
    wait_for(lambda: "Continue with --resume run" in log_of(folder), 60)
    seconds = time.monotonic() - begin
    steps = in_the_middle(folder)
    cluster.start_at_once(job)
    wait_until_complete(cluster, job, folder)
    total = time.monotonic() - begin
    print(f"\nsaved steps {steps} after {seconds:.0f} s, was complete after {total:.0f} s")
    assert cluster.restarts(job) == 1
    assert resumptions(folder) == 1
    assert len(steps) >= 2


def test_a_job_that_is_killed_without_warning_goes_on(
    cluster: Slurm, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path, "sweep.sbatch", ())
    wait_until_two_trials_train(cluster, job, tmp_path)
    kill_all(job)
    wait_for(lambda: cluster.state(job) == "FAILED", 60)
    cluster.call("scontrol", "requeue", job)
    cluster.start_at_once(job)
    wait_until_complete(cluster, job, tmp_path)
    assert cluster.restarts(job) == 1
    assert resumptions(tmp_path) == 1
    assert results(tmp_path) == undisturbed
