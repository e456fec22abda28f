"""What the proofs on the whole stack share: a small run, started as a user starts it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from derain.training.ledger import LEDGER

BIN = Path(sys.executable).parent
PAIRS = 97


def needs_root(what: str) -> None:
    """Fail with a sentence where the system would refuse."""
    if os.geteuid() != 0:
        pytest.fail(f"{what} needs root: run this proof as root, or leave its file out")


def written_config(folder: Path, **train: object) -> Path:
    """config.yaml of a run `run` whose steps take milliseconds."""
    values = {"batch_size": 4, "crop_px": 16, "device": "cpu", "cpu_threads": 1, "ledger": True}
    tree = {
        "name": "run",
        "output_dir": str(folder / "runs"),
        "model": {"name": "prenet", "recursions": 2, "width": 4},
        "data": {"synthetic": {"train_pairs": PAIRS, "eval_pairs": 2, "size_px": 48}},
        "loss": {"perceptual": "none"},
        "train": {**values, "checkpoint_every_steps": 20, "log_every_steps": 20, **train},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def driver(config: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """`derainctl train`, its log beside the config."""
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{config.parent}/mlflow.db"}
    own |= {"DERAIN_CACHE_DIR": str(config.parent / "cache"), **environment}
    command = [str(BIN / "derainctl"), "train", str(config), "--json", *arguments]
    with (config.parent / "log").open("a") as log:
        return subprocess.Popen(
            command, cwd=config.parent, env={**os.environ, **own},
            stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip


def result_of(process: subprocess.Popen[bytes]) -> dict:
    """What a driver that ended well has printed."""
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    return json.loads(out)


def step_of(run: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    found = sorted(run.glob("checkpoints/step-*"))
    return int(found[-1].name.removeprefix("step-")) if found else 0


def ledger(run: Path, last: int = 0) -> list[dict]:
    """The ledger's lines, or the `last` ones, but for one that is being written."""
    path = run / LEDGER
    text = path.read_text() if path.exists() else ""
    whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole[-last:]]


def wait_for(condition: Callable[[], object], seconds: float = 300) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - began


def assert_nothing_lost(run: Path, steps: int) -> None:
    """Every step is there, and every whole epoch has each sample once."""
    lines = ledger(run)
    assert sorted({line["step"] for line in lines}) == list(range(steps))
    assert len({(line["step"], line["rank"]) for line in lines}) == len(lines)
    for epoch in range(max(line["epoch"] for line in lines)):
        ids = [id_ for line in lines if line["epoch"] == epoch for id_ in line["ids"]]
        assert sorted(ids) == list(range(PAIRS))
