"""SIGKILL for `prepare` and all its workers at random moments: the bytes stay the same."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from derain.data.manifest import MANIFEST
from derain.pipelines.prepare import prepare
from derain.pipelines.verify import verify
from tests.conftest import PairedFolder

SHARDS = 24


def started(source: Path, out: Path) -> subprocess.Popen[bytes]:
    """`prepare` with a Ray of its own, all in one process group."""
    command = [sys.executable, "-m", "derain.cli", "prepare", "paired", str(source), str(out)]
    return subprocess.Popen(
        [*command, "--shard-mib", "1"],
        start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """At once and everything: the driver, Ray's servers and its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def survive(source: Path, out: Path, kills: int, seed: int) -> list[int]:
    """Kill `prepare` again and again, then let it end; shards that were there at each kill."""
    draw = random.Random(seed)
    there = []
    while len(there) < kills and not (out / MANIFEST).exists():
        before = len(list(out.glob("shard-*.tar")))
        process = started(source, out)
        wanted = min(SHARDS, before + draw.randint(0, 2))
        while process.poll() is None and len(list(out.glob("shard-*.tar"))) < wanted:
            time.sleep(0.005)
        time.sleep(draw.random() * 0.02)
        kill_group(process)
        there.append(len(list(out.glob("shard-*.tar"))))
    process = started(source, out)
    assert process.wait(timeout=300) == 0
    return there


@pytest.mark.usefixtures("ray_cluster")
def test_kills_leave_no_trace(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source = paired_folder(SHARDS, width=450, height=420)
    prepare("paired", source, tmp_path / "whole", shard_mib=1)
    there = survive(source, tmp_path / "killed", kills=2, seed=0)
    assert len(there) == 2
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    assert verify(tmp_path / "killed").ok
