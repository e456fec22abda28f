"""Measure what one more costs: `python -m benchmarks.costs [--json] [NAME ...]`.

Each value is measured at several sizes, in a new process for each. The table has what one more
adds, and the value at a larger size if it goes on like that: a prediction, not a measurement.
"""

import argparse
import importlib
import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks import FOLDER
from benchmarks.costs.line import Line, lines, table

SIZES = {
    "pairs": (100_000, 200_000, 400_000),
    "trials": (250, 500, 1000),
    "runs": (10, 20),
    "nodes": (4, 8, 16),
    "writers": (1, 2, 4),
}
TARGETS = {"pairs": 10_000_000, "trials": 10_000, "runs": 1000, "nodes": 64, "writers": 64}


def main() -> None:
    """Run the named measurements, or all, and print a table of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--sizes", nargs="+", type=int, help="two or more, instead of the usual")
    parser.add_argument("--json", action="store_true", help="print a JSON list of lines")
    parser.add_argument("--at", type=int, help=argparse.SUPPRESS)  # one size, in this process
    options = parser.parse_args()
    names = options.names or list(SIZES)
    if unknown := set(names) - set(SIZES):
        parser.error(f"no such measurement: {', '.join(unknown)}; choose from {', '.join(SIZES)}")
    if options.at:
        print(json.dumps(_measured_here(names[0], options.at)))
        return
    found = {name: _lines(name, options.sizes or SIZES[name]) for name in names}
    if options.json:
        print(json.dumps([asdict(line) for each in found.values() for line in each], indent=2))
    else:
        print("\n\n".join(map(table, found.values())))


def _lines(name: str, sizes: tuple[int, ...]) -> list[Line]:
    return lines(name, {size: _measured(name, size) for size in sizes}, TARGETS[name])


def _measured(name: str, size: int) -> dict[str, float]:
    """In a new process, so that no size finds what another has left in memory."""
    print(f"== {name}: {size:,}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.costs", name, "--at", str(size)]
    done = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured_here(name: str, size: int) -> dict[str, float]:
    logging.getLogger("derain").setLevel(logging.ERROR)
    module = importlib.import_module(f"benchmarks.costs.{name}")
    with tempfile.TemporaryDirectory(prefix="costs-") as folder:
        return dict(module.measure(size, Path(folder)))


if __name__ == "__main__":
    main()
