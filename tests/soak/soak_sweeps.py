"""Sweeps that are killed again and again: twenty minutes and more, by `make soak`.

A sweep of 12 trials runs unbroken. The same sweep is started again elsewhere and its driver's whole
process group, or the head of its Ray, gets SIGKILL at random moments; each time it is resumed, and
where it ends before all kills are done, another one begins. In the end all must have the same 12
results to the last digit, and no journal may show a trial that ran again after it had ended.
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

from derain.tune.journal import read
from tests.tiny import NETWORK

KILLS = 20
HEADS = (4, 14)
"""Before which of them Ray's head is killed."""
SAME = ("name", "status", "seed", "metrics", "input", "loss", "weights_sha256", "steps")
CONFIG = {
    "name": "search",
    "model": NETWORK,
    "data": {"synthetic": {"train_pairs": 8, "eval_pairs": 2, "size_px": 48}},
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


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The sweep as a process group of its own."""
    kept = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with (folder / "stderr.txt").open("a") as told:
        return subprocess.Popen(
            [sys.executable, "-m", "derain.cli", "sweep", *arguments, "--json"],
            cwd=folder,
            env={**kept, "DERAIN_CACHE_DIR": str(folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            start_new_session=True,
        )


def arguments(folder: Path) -> tuple[str, ...]:
    """Resume, where there is something to resume."""
    begun = (folder / "runs" / "search" / "journal.jsonl").is_file()
    return ("--resume", "search") if begun else ("search.yaml",)


def kill_driver(process: subprocess.Popen[str], after_s: float) -> bool:
    """SIGKILL for the whole group after so long; False where the sweep was faster."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    return False


def kill_head(process: subprocess.Popen[str], after_s: float) -> bool:
    """SIGKILL for this sweep's own gcs_server, then wait until the driver gives up."""
    try:
        process.wait(after_s)
        return False
    except subprocess.TimeoutExpired:
        pass
    heads = [pid for pid in _children(process.pid) if "gcs_server" in _command(pid)]
    for pid in heads:
        os.kill(pid, signal.SIGKILL)
    try:
        process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    return bool(heads)


def finish(folder: Path) -> dict[str, Any]:
    """Run to the end and return what was printed."""
    out, _ = start(folder, *arguments(folder)).communicate()
    return json.loads(out)


def problems(broken: dict[str, Any], unbroken: dict[str, Any], folder: Path) -> list[str]:
    """What is not as it must be."""
    found = []
    for mine, theirs in zip(broken["trials"], unbroken["trials"], strict=True):
        if [mine[key] for key in SAME] != [theirs[key] for key in SAME]:
            found.append(f"{mine['name']}: {mine} is not {theirs}")
    ended: set[str] = set()
    for event in read(folder / "runs" / "search"):
        if event["event"] == "started" and event["key"] in ended:
            found.append(f"{event['key']} was run again")
        if event["event"] == "ended":
            if event["key"] in ended:
                found.append(f"{event['key']} ended twice")
            ended.add(event["key"])
    return found


def test_a_sweep_that_is_killed_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    """20 kills of the driver at random moments, 2 of its Ray's head, over as many sweeps."""
    rng = random.Random(0)
    expected, whole = unbroken(tmp_path / "unbroken")
    due = ["driver"] * KILLS
    for place in HEADS:
        due.insert(place, "head")
    killed, wrong, sweeps = {"driver": 0, "head": 0}, [], 0
    while due:
        folder = begin(tmp_path / f"broken-{sweeps}")
        while due and kill(due[0], folder, rng.uniform(0.2, 1.0) * 0.6 * whole):
            killed[due.pop(0)] += 1
        wrong += problems(finish(folder), expected, folder)
        sweeps += 1
        print(json.dumps({"killed": killed, "sweeps": sweeps, "problems": wrong}), flush=True)
    assert not wrong


def begin(folder: Path) -> Path:
    """A folder with the sweep's file."""
    folder.mkdir()
    (folder / "search.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder


def unbroken(folder: Path) -> tuple[dict[str, Any], float]:
    """What the sweep finds if left alone, and the seconds that it takes."""
    began = time.monotonic()
    return finish(begin(folder)), time.monotonic() - began


def kill(what: str, folder: Path, after_s: float) -> bool:
    """Start or resume, and kill; False where all trials had ended before it was due."""
    process = start(folder, *arguments(folder))
    return {"head": kill_head, "driver": kill_driver}[what](process, after_s)


def _children(parent: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            pid = int(stat.parent.name)
            found += [pid, *_children(pid)]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
