"""Memory of the driver of `prepare` by the number of pairs: 10,000 and 100,000 tiny ones.

Each is measured in a new process: its peak resident memory (VmHWM), Ray's client included. The
task that makes the plan is measured separately, in a process that does nothing else. Memory varies
less than time, so each is measured once, whatever the number of rounds.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import Row, main, row
from derain.data.images.decode import encode_png

FEW, MANY = 10_000, 100_000
SHARD_MIB = 8


def rows(rounds: int) -> list[Row]:  # noqa: ARG001
    """Memory of the driver and of the planner, and what each pair adds to it."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for pairs in (FEW, MANY):
            source = _source(Path(scratch) / str(pairs), pairs)
            out = Path(scratch) / f"out-{pairs}"
            for what in ("driver", "planner"):
                found[what, pairs] = _measured(what, source, out)
    return [line for what in ("driver", "planner") for line in _lines(what, found)]


def _lines(what: str, found: dict[tuple[str, int], float]) -> list[Row]:
    few, many = found[what, FEW], found[what, MANY]
    name = f"prepare's {what}: {MANY:,} pairs"
    slope = (many - few) / (MANY - FEW)
    return [
        row(name, "MB", many / 1e6, {f"{FEW:,} pairs": few / 1e6}, more_is_better=False),
        row(f"prepare's {what}: slope", "bytes/pair", slope, {}, more_is_better=False),
    ]


def _measured(what: str, source: Path, out: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.driver_memory", what, str(source), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _work(what: str, source: str, out: str) -> None:
    """In a new process: do the work, and print its peak memory in bytes."""
    if what == "planner":
        from derain.pipelines.prepare.options import PrepareOptions
        from derain.pipelines.prepare.plan import make_plan

        folder = Path(source)
        make_plan("paired", folder, folder, PrepareOptions(shard_mib=SHARD_MIB))
    else:
        from derain.pipelines.prepare.verb import prepare

        prepare("paired", source, out, shard_mib=SHARD_MIB)
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024)


def _source(folder: Path, pairs: int) -> Path:
    """Pairs of 2 x 2 pixels, no two with the same bytes."""
    for number, side in enumerate(("rain", "clean")):
        (folder / side).mkdir(parents=True)
        for pair in range(pairs):
            pixels = np.array([pair & 255, pair >> 8 & 255, pair >> 16, number] * 3, np.uint8)
            data = encode_png(pixels.reshape(2, 2, 3))
            descriptor = os.open(folder / side / f"{pair:06d}.png", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, data)
            os.close(descriptor)
    return folder


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("driver", "planner"):
        _work(*sys.argv[1:])
    else:
        main(rows)
