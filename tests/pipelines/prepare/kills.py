"""`derainctl prepare` in its own process group, killed while it writes shards."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.processes import kill_group

SHARDS = 24
"""Shards of 1 MiB that the killed `prepare` is to write, at least."""


def start_prepare(source: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """`prepare` with a Ray of its own; `options` are the dataset, default: paired, and options."""
    dataset, *rest = options or ("paired",)
    command = [sys.executable, "-m", "derain.cli", "prepare", dataset, str(source), str(out)]
    return subprocess.Popen(
        [*command, "--shard-mib", "1", *rest],
        start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_prepare(source: Path, out: Path, shards: int, delay_s: float, *options: str) -> int:
    """Start `prepare`, kill it `delay_s` after it has written `shards`; return how many it wrote.

    The driver, Ray's servers and its workers all get SIGKILL at once.
    """
    process = start_prepare(source, out, *options)
    while process.poll() is None and len(list(out.glob("*.tar"))) < shards:
        time.sleep(0.005)
    time.sleep(delay_s)
    kill_group(process)
    return len(list(out.glob("*.tar")))
