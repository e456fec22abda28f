"""SIGKILL for `prepare` and all its workers at random moments: the bytes stay the same."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from tests.conftest import PairedFolder

SHARDS = 24


def started(source: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """`prepare` with a Ray of its own, all in one process group."""
    dataset, *rest = options or ("paired",)
    command = [sys.executable, "-m", "derain.cli", "prepare", dataset, str(source), str(out)]
    return subprocess.Popen(
        [*command, "--shard-mib", "1", *rest],
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


def killed(source: Path, out: Path, shards: int, delay_s: float, *options: str) -> int:
    """Start `prepare`, kill it a little after so many shards are there; how many it then were."""
    process = started(source, out, *options)
    while process.poll() is None and len(list(out.glob("shard-*.tar"))) < shards:
        time.sleep(0.005)
    time.sleep(delay_s)
    kill_group(process)
    return len(list(out.glob("shard-*.tar")))


@pytest.mark.usefixtures("ray_cluster")
def test_a_kill_leaves_no_trace(paired_folder: PairedFolder, tmp_path: Path) -> None:
    """One; `tests/soak/prepare_kills.py` has twenty."""
    source, out = paired_folder(SHARDS, width=450, height=420), tmp_path / "killed"
    prepare("paired", source, tmp_path / "whole", shard_mib=1)
    assert killed(source, out, shards=2, delay_s=0.01) >= 2
    prepare("paired", source, out, shard_mib=1)
    assert digests(out) == digests(tmp_path / "whole")
    assert verify(out).ok
