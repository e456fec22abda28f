"""Every benchmark, each in a process of its own: `python -m benchmarks [--json] [NAME ...]`."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = sorted(
    path.stem
    for path in HERE.glob("*.py")
    if not path.stem.startswith("_") and path.stem != "common"
)


def main() -> int:
    """Run them all, even after one has failed; exit code 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--json", action="store_true", help="one JSON object: rows by benchmark")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    done = {name: _run(name, given.json) for name in given.names or NAMES}
    if given.json:
        print(json.dumps({name: json.loads(out) for name, out in done.items() if out}, indent=2))
    return int(None in done.values())


def _run(name: str, as_json: bool) -> str | None:
    """What a benchmark printed, shown at once unless it is JSON; None when it failed."""
    print(f"== {name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--json"] if as_json else [])]
    ended = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    if not as_json:
        print(ended.stdout, flush=True)
    return ended.stdout if ended.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
