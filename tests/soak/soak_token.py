"""A Ray started as the docs say: without its token nobody is answered, and `doctor` says so."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import free_port, wait_for

BIN = Path(sys.executable).parent
PATHS = ("/api/jobs/", "/api/version", "/nodes?view=summary", "/api/cluster_status")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], int, int]]:
    """The environment of whoever has the token, and the ports of Ray and of its dashboard."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "token"}
    port, dashboard = free_port(), free_port()
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=environment, check=True)
    process = subprocess.Popen(
        [
            BIN / "ray", "start", "--head", "--block", "--num-cpus=1", f"--port={port}",
            f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
        ],
        env=environment,
    )  # fmt: skip
    try:
        wait_for_dashboard(dashboard, process)
        yield environment, port, dashboard
    finally:
        process.terminate()
        process.wait(120)


def wait_for_dashboard(port: int, process: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: status_of(port, "/api/version") != 0, 120, process=process)


def status_of(port: int, path: str, data: bytes | None = None, token: str = "") -> int:
    """The HTTP status of an answer; 0 if nobody listens."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
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


def test_the_job_api_answers_nobody_without_the_token(head: tuple) -> None:
    environment, _, dashboard = head
    job = json.dumps({"entrypoint": "true"}).encode()
    for token in ("", "0" * 64):
        for path in PATHS:
            assert status_of(dashboard, path, token=token) in (401, 403), path
        assert status_of(dashboard, "/api/jobs/", job, token) in (401, 403)
    own = (Path(environment["HOME"]) / ".ray" / "auth_token").read_text().strip()
    assert status_of(dashboard, "/api/jobs/", token=own) == 200


def test_doctor_passes_with_the_token_and_fails_with_another(head: tuple, tmp_path: Path) -> None:
    environment, port, _ = head
    for token, expected in (({}, 0), ({"RAY_AUTH_TOKEN": "0" * 64}, 1)):
        done = subprocess.run(
            [sys.executable, "-m", "derain.cli", "doctor", "--json", "--address",
             f"127.0.0.1:{port}"],
            cwd=tmp_path, env={**environment, **token}, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert done.returncode == expected, done.stdout + done.stderr
        failed = [c["name"] for c in json.loads(done.stdout)["checks"] if c["status"] == "fail"]
        assert failed == (["ray"] if expected else [])
