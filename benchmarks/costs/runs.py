"""A real sweep of so many trials of one step, two at a time, from its start to its report."""

import os
import time
from pathlib import Path

import numpy as np

from benchmarks.costs.line import Values
from benchmarks.sweeps import base_config
from derain import cluster
from derain.tracking.store import prepare_store
from derain.tune.sweep import sweep

AT_ONCE = 2


def measure(trials: int, folder: Path) -> Values:
    """Seconds, and what is on the disk afterwards."""
    os.environ["MLFLOW_TRACKING_URI"] = prepare_store(f"sqlite:///{folder}/mlflow.db")
    with cluster.connected():
        rates = [float(rate) for rate in np.geomspace(1e-4, 1e-2, trials)]
        space = {"space": {"train.lr": {"grid": rates}}, "cohort": "off", "concurrent": AT_ONCE}
        changes = {"name": "sweep", "train.steps": 1, "sweep": space}
        config = base_config(folder).replaced(changes, "benchmark")
        empty = _bytes(folder / "mlflow.db")
        began = time.perf_counter()
        found = sweep(config)
        seconds = time.perf_counter() - began
    assert [trial["status"] for trial in found["trials"]] == ["finished"] * trials
    files = [path for path in config.folder.rglob("*") if path.is_file()]
    return {
        "from start to report, s": seconds,
        "the sweep's folder, files": len(files),
        "the sweep's folder, MB": sum(map(_bytes, files)) / 1e6,
        "mlflow.db, MB": (_bytes(folder / "mlflow.db") - empty) / 1e6,
    }


def _bytes(path: Path) -> int:
    return path.stat().st_size
