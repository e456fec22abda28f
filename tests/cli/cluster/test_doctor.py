"""`derainctl doctor`: the list, the JSON document, the exit code."""

import json
import re
from pathlib import Path

import pytest

from derain.cli.cluster.doctor import listed
from tests.cli.conftest import Derainctl


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")


def test_json_has_every_check_and_a_run_that_would_fail_is_exit_code_1(
    derainctl: Derainctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    done = derainctl("doctor", "--json")
    checks = json.loads(done.stdout)["checks"]
    assert done.returncode == 0, done.stdout
    assert all(set(check) == {"name", "status", "found", "remedy"} for check in checks)
    (tmp_path / "mlflow.db").write_text("not a database")
    done = derainctl("doctor")
    assert done.returncode == 1
    assert re.search(r"^fail  mlflow .*not a sqlite file", done.stdout, re.MULTILINE)
    assert "-> " in done.stdout


@pytest.mark.usefixtures("ray_cluster")
def test_with_an_address_the_nodes_are_checked(
    derainctl: Derainctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    done = derainctl("doctor", "--address", "auto")  # this process is connected already
    assert done.returncode == 0, done.stdout
    assert re.search(r"^ok    derain on the nodes .* on 1 node: ", done.stdout, re.MULTILINE)


def test_the_list_is_aligned() -> None:
    checks = [
        {"name": "a", "status": "ok", "found": "x", "remedy": ""},
        {"name": "long", "status": "fail", "found": "y", "remedy": "do it"},
    ]
    assert listed(checks) == "ok    a     x\nfail  long  y\n            -> do it"
