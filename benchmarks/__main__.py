"""Run the benchmarks, each in its own process: `python -m benchmarks [--rounds N] [NAME ...]`."""

import argparse
import json
import subprocess
import sys

from benchmarks import FOLDER, NAMES


def main() -> int:
    """Run the named benchmarks, or all, even after one has failed; exit code 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: the rows of each benchmark"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="of each benchmark")
    names = f"default: all of {', '.join(NAMES)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=names)
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    given = ["--json"] if options.json else []
    if options.rounds:
        given.append(f"--rounds={options.rounds}")
    done = {name: _run(name, given) for name in options.names or NAMES}
    if options.json:
        print(json.dumps({name: json.loads(out) for name, out in done.items() if out}, indent=2))
    return int(None in done.values())


def _run(name: str, given: list[str]) -> str | None:
    """Run one benchmark, print its table unless JSON; return its output, or None if it failed."""
    print(f"== {name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *given]
    ended = subprocess.run(
        command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=False
    )
    if "--json" not in given:
        print(ended.stdout, flush=True)
    return ended.stdout if ended.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
