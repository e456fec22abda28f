"""Without its token a Ray started as the docs say answers nobody, and `doctor` says so."""

import json
from pathlib import Path

import pytest

from tests.pipelines.jobs.conftest import Head

# Alone: with a second Ray on two busy cores the agent of this head takes more than the 15 s that
# its raylet waits for the agent's port.
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.soak]

PATHS = ("/api/jobs/", "/api/version", "/nodes?view=summary", "/api/cluster_status")


def test_the_job_api_answers_nobody_without_the_token(head: Head) -> None:
    job = json.dumps({"entrypoint": "true"}).encode()
    for token in ("", "0" * 64):
        for path in PATHS:
            assert head.status_of(path, token=token) in (401, 403), path
        assert head.status_of("/api/jobs/", job, token) in (401, 403)
    own = (head.home / ".ray" / "auth_token").read_text().strip()
    assert head.status_of("/api/jobs/", token=own) == 200


def test_submit_without_the_token_names_the_remedy(head: Head, tmp_path: Path) -> None:
    for token in ({"HOME": str(tmp_path)}, {"RAY_AUTH_TOKEN": "0" * 64}):
        done = head.run("status", cwd=tmp_path, **token)
        assert done.returncode == 1, done.stderr
        assert "refuses this token. Copy ~/.ray/auth_token" in done.stderr


def test_doctor_passes_with_the_token_and_fails_with_another(head: Head, tmp_path: Path) -> None:
    for token, expected in (({}, 0), ({"RAY_AUTH_TOKEN": "0" * 64}, 1)):
        done = head.run(
            "doctor", "--json", "--address", f"127.0.0.1:{head.port}", cwd=tmp_path,
            RAY_AUTH_MODE="token", **token,
        )  # fmt: skip
        assert done.returncode == expected, done.stdout + done.stderr
        failed = [c["name"] for c in json.loads(done.stdout)["checks"] if c["status"] == "fail"]
        assert failed == (["ray"] if expected else [])
