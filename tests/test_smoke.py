"""End to end on the smallest size: one command, from photographs to a registered model."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks._small import NETWORK

CONFIG = {
    "name": "smoke",
    "profile": "smoke",
    "profiles": {"smoke": {"train": {"steps": 10}}},
    "model": NETWORK,
    "data": {
        "synthetic": {"train_pairs": 4, "validation_pairs": 2, "test_pairs": 2, "size_px": 48}
    },
    "train": {"steps": 1000, "batch_size": 2, "crop_px": 16, "device": "cpu"},
    "loss": {"perceptual": "encoder"},
    "sweep": {
        "space": {"model.ldfps_sigma": {"grid": {"off": None, "low": [0.01, 0.01, 0.01, 0.01]}}}
    },
    "register": {"name": "smoke-net"},
}


@pytest.mark.soak
@pytest.mark.xdist_group("ray")
def test_one_command_from_photographs_to_a_registered_model(tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(CONFIG))
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [Path(sys.executable).with_name("derainctl"), "sweep", "smoke.yaml", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["profile"] == "smoke"
    assert [trial["status"] for trial in result["trials"]] == ["finished", "finished"]
    assert result["registered"] == {"name": "smoke-net", "version": 1, "alias": "champion"}
    assert Path(result["report"]).is_file()
    first, *_ = done.stderr.splitlines()
    assert "profile smoke: 2 trials of 10 steps" in first
    assert "results are not comparable" in done.stderr
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        statuses = store.execute("select status from runs").fetchall()
    assert statuses == [("FINISHED",)] * 3
    assert {path.name for path in tmp_path.iterdir()} <= {
        "smoke.yaml", "runs", "cache", "mlflow.db", "mlflow.db.lock", "mlruns",
    }  # fmt: skip
