"""What `doctor` finds on this machine, on a cluster, in a store; and that nothing hangs it."""

import sqlite3
import time
from pathlib import Path

import pytest

from derain.pipelines.doctor import machine, nodes, stores
from derain.pipelines.doctor.check import Check, within
from derain.pipelines.doctor.verb import doctor
from derain.tracking.store import prepare_store
from tests.tiny import config


def test_what_hangs_or_breaks_is_a_failed_check() -> None:
    (late,) = within(0.1, "disk", lambda: time.sleep(5) or [])
    assert (late.name, late.status) == ("disk", "fail")
    assert "0.1 s" in late.found
    (broken,) = within(5, "disk", lambda: [Check("disk", "ok", str(1 / 0))])
    assert broken.status == "fail"
    assert "ZeroDivisionError" in broken.found


def test_the_disk_of_the_cache_is_measured_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    (check,) = machine.cache_disk(tmp_path)
    assert time.monotonic() < start + 10
    assert "MiB/s" in check.found
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(machine, "_speeds", lambda _: (3.0, 900.0))
    (slow,) = machine.cache_disk(tmp_path)
    assert slow.status == "warn"
    assert "DERAIN_CACHE_DIR" in slow.remedy


def test_no_or_little_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.shared_memory(tmp_path / "none")[0].status == "fail"
    monkeypatch.setattr(machine, "SHM_BYTES", 2**62)
    assert machine.shared_memory(tmp_path)[0].status == "warn"


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.python()[0].status == "ok"
    monkeypatch.setattr(machine, "SUPPORTED", ((3, 98), (3, 99)))
    (check,) = machine.python()
    assert (check.status, check.remedy) == ("fail", "Install Python 3.98 to 3.99.")


def test_a_store_of_another_mlflow_and_one_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    assert stores.mlflow_store()[0].status == "ok"
    assert not database.exists()
    prepare_store()
    (current,) = stores.mlflow_store()
    assert (current.status, "schema" in current.found) == ("ok", True)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'older'")
    (older,) = stores.mlflow_store()
    assert older.status == "fail"
    assert "mlflow db upgrade" in older.remedy
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hidden@127.0.0.1:1")
    (away,) = stores.mlflow_store()
    assert away.status == "fail"
    assert "hidden" not in away.found + away.remedy


@pytest.mark.usefixtures("ray_cluster")
def test_every_node_has_this_software_and_sees_the_folders(tmp_path: Path) -> None:
    checks = nodes.checks({"output_dir": tmp_path / "runs"})
    assert [check.name for check in checks] == [
        "ray on the nodes", "python on the nodes", "derain on the nodes", "clocks of the nodes",
        "output_dir",
    ]  # fmt: skip
    assert {check.status for check in checks} == {"ok"}
    assert not (tmp_path / "runs").exists()


def test_a_node_that_differs_is_named(tmp_path: Path) -> None:
    """Two answers in place of those of a second machine, which sees and has something else."""
    own = nodes.facts([])
    old = {**own, "ray": "1.0", "time": own["time"] - 60}
    token = str(tmp_path / ".derain-0")
    times = {"asked": own["time"] - 1, "answered": own["time"] + 1}
    answers = {
        "10.0.0.1": {**own, **times, "unseen": [], "unwritable": []},
        "10.0.0.2": {**old, **times, "unseen": [token], "unwritable": []},
    }
    ray_, python, code = nodes._versions(answers)
    assert (ray_.status, python.status, code.status) == ("fail", "ok", "ok")
    assert "1.0 on 10.0.0.2" in ray_.found
    clock = nodes._clocks(answers)
    assert (clock.status, clock.found) == ("warn", "10.0.0.2 is 59.0 s off")
    (folder,) = nodes._folders(answers, {"output_dir": tmp_path}, [Path(token)])
    assert folder.status == "fail"
    assert "10.0.0.2 does not see it" in folder.found
    (silent,) = nodes._silent({"10.0.0.3": "gone"})
    assert silent.status == "fail"


def test_a_config_is_checked_as_a_run_checks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "file").write_text("")
    values = {"output_dir": str(tmp_path / "file"), "train.device": "cuda"}
    broken = config(tmp_path / "runs").replaced(values, "the test")
    found = {check["name"]: check for check in doctor(broken)["checks"]}
    assert found["output_dir"]["status"] == "fail"
    assert found["device"]["status"] == ("ok" if _has_gpu() else "fail")
    assert {"python", "torch", "/dev/shm", "cache", "clock", "mlflow", "config"} <= found.keys()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
