"""A small run of `derainctl train` in its own process, for the soak tests of the whole stack."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from derain.training.ledger import read_ledger

BIN = Path(sys.executable).parent
PAIRS = 97
SAME = ("name", "status", "seed", "metrics", "input", "loss", "weights_sha256", "steps")
"""Of the results of a trial: what no interruption may change."""


def needs_root(what: str) -> None:
    """Fail with a clear message, instead of with what the system would answer."""
    if os.geteuid() != 0:
        pytest.fail(f"{what} needs root: run this soak test as root, or leave its file out")


def tree_of(folder: Path, **train: object) -> dict[str, Any]:
    """The config of a run `run` whose steps take milliseconds."""
    values = {"batch_size": 4, "crop_px": 16, "device": "cpu", "cpu_threads": 1, "ledger": True}
    return {
        "name": "run",
        "output_dir": str(folder / "runs"),
        "model": {"name": "prenet", "recursions": 2, "width": 4},
        "data": {
            "synthetic": {
                "train_pairs": PAIRS,
                "validation_pairs": 2,
                "test_pairs": 2,
                "size_px": 48,
            }
        },
        "loss": {"perceptual": "none"},
        "train": {**values, "checkpoint_every_steps": 20, "log_every_steps": 20, **train},
    }


def write_config(folder: Path, **train: object) -> Path:
    """Write `tree_of` as config.yaml."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree_of(folder, **train)))
    return path


def start_train(config: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start `derainctl train`, see `start`."""
    return start("train", config, *arguments, **environment)


def start(verb: str, config: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start `derainctl train` or `sweep`; its log goes to `log` beside the config."""
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{config.parent}/mlflow.db"}
    own |= {"DERAIN_CACHE_DIR": str(config.parent / "cache"), **environment}
    command = [str(BIN / "derainctl"), verb, str(config), "--json", *arguments]
    with (config.parent / "log").open("a") as log:
        return subprocess.Popen(
            command, cwd=config.parent, env={**os.environ, **own},
            stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip


def result_of(process: subprocess.Popen[bytes]) -> dict:
    """Wait for a run that is to succeed; return what it printed."""
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    return json.loads(out)


def stop(process: subprocess.Popen[bytes], run: Path) -> int:
    """Send SIGTERM: all workers save after the same step, which is returned."""
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 143
    return step_of(run)


def step_of(run: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    folders = sorted(run.glob("checkpoints/step-*"))
    return int(folders[-1].name.removeprefix("step-")) if folders else 0


def ledger(run: Path, last: int = 0) -> list[dict]:
    """The ledger's lines (default: all), without one that is still being written."""
    return read_ledger(run)[-last:]


def assert_nothing_lost(run: Path, steps: int) -> None:
    """The ledger has every step once, and every complete epoch has each sample once."""
    lines = ledger(run)
    assert sorted({line["step"] for line in lines}) == list(range(steps))
    assert len({(line["step"], line["rank"]) for line in lines}) == len(lines)
    for epoch in range(max(line["epoch"] for line in lines)):
        ids = [id_ for line in lines if line["epoch"] == epoch for id_ in line["ids"]]
        assert sorted(ids) == list(range(PAIRS))
