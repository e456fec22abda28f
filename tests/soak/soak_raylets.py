"""Three raylets of unequal size, one of which is killed: the results of an undisturbed cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GOES_ON_WITHIN_S = 180
"""On a loaded machine; most of it is Ray's notice of a lost machine and the start of processes."""


def twice(folder: Path, *what: str) -> dict[str, Any]:
    """See `tests.soak.raylets`, in a process of its own."""
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    own |= {"DERAIN_CACHE_DIR": str(folder / "cache"), "RAY_raylet_start_wait_time_s": "120"}
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.raylets", *what, str(folder)],
            env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=log, text=True,
            timeout=3000, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (folder / "log").read_text()[-5000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{' '.join(what)}: {found['told']}")
    return found


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_a_run_goes_on_without_one_of_three_machines(tmp_path: Path, workers: int) -> None:
    found = twice(tmp_path, "train", str(workers))
    ((whole, killed),) = found["pairs"]
    assert killed == whole
    assert found["told"]["resumed_from_step"] > 0
    assert found["told"]["all_go_on_after_s"] < GOES_ON_WITHIN_S
    # Not their LOCAL_RANK: Ray counts it by address, and these raylets share one.
    assert all(place["CUDA_VISIBLE_DEVICES"] for place in found["seen"])


@pytest.mark.parametrize("kind", ["share", "workers"])
def test_a_sweep_goes_on_without_one_of_three_machines(tmp_path: Path, kind: str) -> None:
    """Several trials on a GPU, then several GPUs for a trial."""
    found = twice(tmp_path, "sweep", kind)
    for whole, killed in found["pairs"]:
        assert killed == whole
        assert killed["status"] == "finished"
    assert found["told"]["all_go_on_after_s"] < GOES_ON_WITHIN_S
    gpus = [len(place["CUDA_VISIBLE_DEVICES"].split(",")) for place in found["seen"]]
    assert max(gpus) == (1 if kind == "share" else 2)
