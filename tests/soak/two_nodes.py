"""Two Ray nodes with addresses of their own (clusters/local), and commands as jobs there."""

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import command_line, wait_for
from tests.repository import ROOT
from tests.soak.stack import BIN

NAME, NETWORK = "dsoak", "10.77.1"
HEAD, OTHER = f"{NETWORK}.1", f"{NETWORK}.2"
PATIENCE = {"RAY_raylet_start_wait_time_s": "120"}


@dataclass
class Job:
    """A command that was submitted as a job, and what was seen of it."""

    process: subprocess.Popen[bytes]
    folder: Path
    began: float
    seen: dict[int, set[str]] = field(default_factory=lambda: {1: set(), 2: set()})
    """What ran on each node, of the processes that were looked for."""
    seconds: dict[str, float] = field(default_factory=dict)
    """From the start until the end; from the cut until Ray lost the node, and until the end."""

    @property
    def log(self) -> str:
        """What came to stderr so far."""
        return (self.folder / "stderr").read_text()

    @property
    def out(self) -> Any:
        """What came to stdout, as JSON."""
        return json.loads((self.folder / "stdout").read_text())


class TwoNodes:
    """Node 1 is the head; node 2 can be cut off. The folders of this machine are those of both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **PATIENCE,
            "HOME": str(folder),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "DERAIN_CACHE_DIR": str(folder / "cache"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "RAY_ADDRESS": f"http://{HEAD}:8265",
            "NAME": NAME,
            "NETWORK": NETWORK,
        }

    def nodes(self, *words: str) -> None:
        """Call clusters/local/nodes.sh."""
        script = ROOT / "clusters/local/nodes.sh"
        subprocess.run([script, *words], env=self.environment, check=True, timeout=300)

    def alive(self) -> set[str]:
        """The addresses of the nodes that Ray counts on."""
        told = self._get("/nodes?view=summary")
        nodes = told["data"]["summary"] if told else []
        return {
            node["raylet"]["nodeManagerAddress"]
            for node in nodes
            if node["raylet"].get("state") == "ALIVE"
        }

    def _get(self, path: str) -> Any:
        token = (self.folder / ".ray/auth_token").read_text().strip()
        request = urllib.request.Request(f"http://{HEAD}:8265{path}")
        request.add_header("Authorization", f"Bearer {token}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), direct.open(request, timeout=20) as answer:
            return json.load(answer)
        return None

    def mend(self) -> None:
        """Put the second node back as a new one, whatever has become of it."""
        if self.alive() == {HEAD, OTHER}:
            return
        self.nodes("heal", "2")
        self.nodes("kill", "2")
        self.nodes("start", "2")
        wait_for(lambda: self.alive() == {HEAD, OTHER}, 120)

    def running(self, node: int, kinds: tuple[str, ...]) -> set[int]:
        """The processes of a node whose command line has one of these words."""
        command = ["ip", "netns", "pids", f"{NAME}-{node}"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = {int(pid): command_line(int(pid)) for pid in listed.split()}
        return {pid for pid, line in lines.items() if any(kind in line for kind in kinds)}

    def submit(self, folder: Path, *words: str) -> Job:
        """Run a command of derainctl as a job, from this machine."""
        folder.mkdir(exist_ok=True)
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [BIN / "derainctl", "submit", "--", *words],
                cwd=folder, env=self.environment, stdout=out, stderr=err,
            )  # fmt: skip
        return Job(process, folder, time.monotonic())

    def stop(self, job: Job) -> None:
        """Ask a job to stop, as SIGTERM does."""
        name = job.log.split("job ", 1)[1].split()[0]
        subprocess.run([BIN / "derainctl", "stop", name], env=self.environment, check=True)

    def watch(
        self,
        job: Job,
        kinds: tuple[str, ...],
        *,
        cut_when: Callable[[], bool] | None = None,
        mend_when: Callable[[], bool] | None = None,
        limit: float = 400,
    ) -> int:
        """Wait for a job to end, and note where its processes ran; returns its exit code.

        The second node is cut off when `cut_when` holds, and a new one takes its place when
        `mend_when` does.
        """
        cut = None
        while job.process.poll() is None:
            assert time.monotonic() < job.began + limit, f"hangs:\n{job.log[-5000:]}"
            for node, seen in job.seen.items():
                if node == 1 or cut is None:
                    seen.update(str(pid) for pid in self.running(node, kinds))
            if cut is None and cut_when and cut_when():
                self.nodes("cut", "2")
                cut = time.monotonic()
            if cut and "lost" not in job.seconds and self.alive() == {HEAD}:
                job.seconds["lost"] = time.monotonic() - cut
            if cut and mend_when and mend_when():
                self.mend()
                mend_when = None
                job.seconds["mended"] = time.monotonic() - cut
            time.sleep(0.1)
        job.seconds["all"] = time.monotonic() - job.began
        if cut_when:
            assert cut, f"it ended before it could be disturbed:\n{job.log}"
            job.seconds["end"] = time.monotonic() - cut
        print(f"\n{job.folder.name}: exit code {job.process.returncode}, {_rounded(job.seconds)}")
        return job.process.returncode


def _rounded(seconds: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in seconds.items()}


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[TwoNodes]:
    """A head and another node of one core each, for the block."""
    cluster = TwoNodes(folder)
    try:
        cluster.nodes("up", "2")
        wait_for(lambda: cluster.alive() == {HEAD, OTHER}, 120)
        yield cluster
    finally:
        cluster.nodes("down")
