"""Sweeps that are killed repeatedly: twenty minutes and more, in `make soak`.

One sweep of 12 trials runs uninterrupted. The same sweep runs in another folder, and the whole
process group of its driver, or the head of its Ray, gets SIGKILL at random moments; each time it is
resumed, and if it ends before all kills are done, another sweep starts. All must end with the same
12 results to the last digit, and no journal may show a trial that ran again after it had ended.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks._small import NETWORK
from derain.tune.journal import read
from tests.processes import command_line, descendants, kill_group
from tests.soak.stack import SAME

KILLS = 20
HEADS = (4, 14)
"""Positions in the sequence of kills at which Ray's head is killed as well."""
CONFIG = {
    "name": "search",
    "model": NETWORK,
    "data": {
        "synthetic": {"train_pairs": 8, "validation_pairs": 2, "test_pairs": 2, "size_px": 48}
    },
    "train": {
        "steps": 120,
        "batch_size": 4,
        "crop_px": 16,
        "device": "cpu",
        "cpu_threads": 1,
        "log_every_steps": 10,
        "checkpoint_every_steps": 10,
    },
    "loss": {"perceptual": "none"},
    "sweep": {
        "space": {
            "train.lr": {"grid": [1e-4, 1e-3, 1e-2, 3e-2]},
            "train.batch_size": {"grid": [2, 4, 6]},
        },
        "concurrent": 2,
        "cohort": "off",
    },
}


def start_sweep(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the sweep in its own process group."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with (folder / "stderr.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "derain.cli", "sweep", *arguments, "--json"],
            cwd=folder,
            env={**environment, "DERAIN_CACHE_DIR": str(folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


ARGUMENTS = ("search.yaml", "--resume", "search")
"""They also start the sweep, and start it again if it was killed before its first checkpoint."""


def kill_driver(process: subprocess.Popen[str], after_s: float) -> bool:
    """SIGKILL for the whole group after `after_s`; False if the sweep ended earlier."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return True
    return False


def kill_head(process: subprocess.Popen[str], after_s: float) -> bool:
    """SIGKILL for this sweep's gcs_server, then wait until the driver gives up."""
    try:
        process.wait(after_s)
        return False
    except subprocess.TimeoutExpired:
        pass
    heads = [pid for pid in descendants(process.pid) if "gcs_server" in command_line(pid)]
    for pid in heads:
        os.kill(pid, signal.SIGKILL)
    try:
        process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        kill_group(process)
    return bool(heads)


def finish(folder: Path) -> dict[str, Any]:
    """Let the sweep run to its end; return what it printed."""
    out, _ = start_sweep(folder, *ARGUMENTS).communicate()
    return json.loads(out)


def problems(broken: dict[str, Any], uninterrupted: dict[str, Any], folder: Path) -> list[str]:
    """Results that differ, and trials that ran again after they had ended."""
    found = []
    for trial, expected in zip(broken["trials"], uninterrupted["trials"], strict=True):
        if [trial[key] for key in SAME] != [expected[key] for key in SAME]:
            found.append(f"{trial['name']}: {trial} is not {expected}")
    ended: set[str] = set()
    for event in read(folder / "runs" / "search"):
        if event["event"] == "started" and event["key"] in ended:
            found.append(f"{event['key']} was run again")
        if event["event"] == "ended":
            if event["key"] in ended:
                found.append(f"{event['key']} ended twice")
            ended.add(event["key"])
    return found


def test_a_killed_sweep_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """20 kills of the driver at random moments and 2 of its Ray's head, over several sweeps."""
    rng = random.Random(0)
    expected, seconds = uninterrupted(tmp_path / "uninterrupted")
    due = ["driver"] * KILLS
    for position in HEADS:
        due.insert(position, "head")
    killed, wrong, sweeps = {"driver": 0, "head": 0}, [], 0
    while due:
        folder = make_folder(tmp_path / f"broken-{sweeps}")
        while due and kill(due[0], folder, rng.uniform(0.2, 1.0) * 0.6 * seconds):
            killed[due.pop(0)] += 1
        wrong += problems(finish(folder), expected, folder)
        sweeps += 1
        print(json.dumps({"killed": killed, "sweeps": sweeps, "problems": wrong}), flush=True)
    assert not wrong


def make_folder(folder: Path) -> Path:
    """Make a folder with the sweep's config."""
    folder.mkdir()
    (folder / "search.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder


def uninterrupted(folder: Path) -> tuple[dict[str, Any], float]:
    """The result of a sweep that is not killed, and its seconds."""
    start = time.monotonic()
    return finish(make_folder(folder)), time.monotonic() - start


def kill(what: str, folder: Path, after_s: float) -> bool:
    """Start or resume the sweep, and kill it; False if it ended before the kill was due."""
    process = start_sweep(folder, *ARGUMENTS)
    return {"head": kill_head, "driver": kill_driver}[what](process, after_s)
