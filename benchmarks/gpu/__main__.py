"""Run stages: `python -m benchmarks.gpu STAGE ... --out OUT`; exit code 1 if an item failed."""

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.gpu import correctness, science, speed
from benchmarks.gpu.items import Bench
from derain.training.process.device import device_named

STAGES = {"correctness": correctness.items, "speed": speed.items, "science": science.items}


def main() -> int:
    """Run the stages in the order given, as long as there is time."""
    began = time.monotonic()
    options = _options().parse_args()
    device = device_named(options.device)
    bench = Bench(
        out=Path(options.out),
        device=device,
        small=options.small,
        train=options.train,
        only=tuple(options.only),
        deadline=began + 60 * options.minutes,
    )
    bench.note_machine()
    for stage in options.stages:
        bench.run(stage, STAGES[stage](bench))
    for line in bench.left:
        print(f"left for the next call: {line}")
    print(f"{len(bench.failed)} failed, {len(bench.left)} left; torch {torch.__version__}")
    return int(bool(bench.failed))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=str([*STAGES]))
    parser.add_argument("--out", required=True, help="folder of results and checkpoints")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no item after them")
    parser.add_argument("--train", help="prepared dataset for `science`")
    parser.add_argument("--only", nargs="*", default=[], help="items whose name has one of these")
    parser.add_argument("--small", action="store_true", help="tiny networks: does it run at all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
