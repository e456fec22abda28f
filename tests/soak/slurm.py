"""A Slurm of its own in a folder, for soak tests: munge with its own key, a controller, two nodes.

Both nodes are this machine, each with a `slurmd` and a port of its own. Their cores and GPUs are
what the configuration says, and Slurm counts them; the processes have no GPU. There are no cgroups
(proctrack/linuxproc), so a SIGTERM from Slurm reaches every process of a job.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.processes import free_port, wait_for
from tests.soak.stack import BIN

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
NODES = ("one", "two")
KILL_WAIT_S = 30
"""Slurm's default between SIGTERM and SIGKILL."""
PROTECTED = 0o700
CONFIG = """
ClusterName=soak
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait={kill_wait}
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={one} CPUs=2 Gres=gpu:1
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={two} CPUs=2 Gres=gpu:1
PartitionName=all Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Jobs of the cluster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *command: str, **environment: str) -> str:
        """What one of Slurm's commands prints."""
        return subprocess.run(
            command, cwd=self._folder, env={**self.environment, **environment},
            check=True, stdout=subprocess.PIPE, text=True,
        ).stdout.strip()  # fmt: skip

    def submit(self, *words: str, log: Path, environment: Mapping[str, str]) -> str:
        """The number of a new job."""
        path = f"{BIN}:{os.environ['PATH']}"
        options = ("--parsable", f"--output={log}", f"--chdir={log.parent}")
        return self.call("sbatch", *options, *words, PATH=path, **environment)

    def state(self, job: str) -> str:
        """RUNNING, PENDING, COMPLETED, ..."""
        return self._field(job, "JobState")

    def restarts(self, job: str) -> int:
        return int(self._field(job, "Restarts"))

    def _field(self, job: str, name: str) -> str:
        shown = self.call("scontrol", "--oneliner", "show", "job", job)
        return next(word for word in shown.split() if word.startswith(f"{name}=")).split("=")[1]

    def cancel_all(self) -> None:
        """End all processes of all jobs, which would outlive the servers."""
        self.call("scancel", "--full", "--signal=KILL", "--user=root")
        self.call("scancel", "--user=root")
        wait_for(lambda: not self.call("squeue", "--noheader"), 2 * KILL_WAIT_S)

    def start_at_once(self, job: str) -> None:
        """Slurm lets a requeued job wait for two minutes otherwise."""
        wait_for(lambda: self.state(job) == "PENDING", 2 * KILL_WAIT_S)
        self.call("scontrol", "update", f"JobId={job}", "StartTime=now")


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A cluster of two nodes with two cores and a GPU each."""
    check_programs()
    folder.mkdir(mode=PROTECTED)
    ports = {"controller": free_port(), "one": free_port(), "two": free_port()}
    host = socket.gethostname().partition(".")[0]
    text = CONFIG.format(folder=folder, host=host, kill_wait=KILL_WAIT_S, **ports)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # any device: none is used
    cluster = Slurm(folder)
    with contextlib.ExitStack() as started:
        start_munge(folder, started)
        start(cluster, started, folder, ["slurmctld", "-D"])
        for node in NODES:
            start(cluster, started, folder, ["slurmd", "-D", "-N", node])
        wait_for(lambda: cluster.call("sinfo", "--noheader", "--format=%T %D") == "idle 2", 60)
        started.callback(cluster.cancel_all)
        yield cluster


def check_programs() -> None:
    if os.geteuid() != 0:
        pytest.fail("slurmd needs root: run this soak test as root, or leave its file out")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.fail(
            f"{', '.join(missing)}: not found. This soak test needs Slurm; on Debian and Ubuntu "
            "the packages slurmctld, slurmd, slurm-client and munge have it."
        )


def start_munge(folder: Path, started: contextlib.ExitStack) -> None:
    """Munge, by which Slurm's servers know each other."""
    own = folder / "munge"
    own.mkdir(mode=PROTECTED)
    key = own / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    names = {"key-file": key, "socket": own / "socket", "pid-file": own / "pid"}
    names |= {"log-file": own / "log", "seed-file": own / "seed"}
    options = [f"--{option}={path}" for option, path in names.items()]
    with (own / "messages").open("w") as messages:
        process = subprocess.Popen(
            ["munged", "--foreground", "--force", *options], stdout=messages, stderr=messages
        )
    started.callback(end, process)
    wait_for((own / "socket").exists, 30, process=process)


def start(cluster: Slurm, started: contextlib.ExitStack, folder: Path, command: list[str]) -> None:
    with (folder / "servers.log").open("a") as log:
        process = subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log)
    started.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
