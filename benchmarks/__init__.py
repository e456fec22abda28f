"""Speed against peers and limits: `python -m benchmarks.NAME [--json]`; `make bench` runs all."""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if not path.stem.startswith("_") and path.stem != "common"
)
"""The benchmarks; the other modules are what they share."""
