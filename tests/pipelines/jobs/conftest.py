"""A Ray head with a dashboard and a token, as the docs start one, that these tests share."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import free_port, wait_for

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A running head, and the environment of whoever has its token."""

    home: Path
    environment: dict[str, str] = field(repr=False)
    port: int
    dashboard: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def run(self, *words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run derainctl against this head."""
        with self.start(*words, cwd=cwd, **variables) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        """Start derainctl against this head."""
        return subprocess.Popen(
            [BIN / "derainctl", *words], cwd=cwd, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.environment, "RAY_ADDRESS": self.address, **variables},
        )  # fmt: skip

    def status_of(self, path: str, data: bytes | None = None, token: str = "") -> int:
        """The HTTP status of the dashboard's answer; 0 if nobody listens."""
        request = urllib.request.Request(f"{self.address}{path}", data=data)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            return int(direct.open(request, timeout=20).status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head whose token is in a home of its own, and nowhere in the environment."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DERAIN_CACHE_DIR": str(home / "cache"),
    }
    started = Head(home, environment, free_port(), free_port())
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=environment, check=True)
    process = subprocess.Popen(
        [
            BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={started.port}",
            f"--dashboard-port={started.dashboard}", "--dashboard-host=127.0.0.1",
        ],
        env={**environment, "RAY_AUTH_MODE": "token"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: started.status_of("/api/version"), 120, process=process)
        yield started
    finally:
        process.terminate()
        process.wait(120)
