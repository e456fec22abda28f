"""metrics.jsonl of a run: one line of metrics per logged step."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.storage.lines import append_whole
from derain.training.ledger import keep_before

METRICS_FILE = "metrics.jsonl"
TAIL_BYTES = 2**14
"""How much of the file's end `read_latest_metrics` reads: dozens of lines."""


def append_metrics(folder: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Append the metrics of a step: the whole line, or none of it if the disk refuses."""
    with (folder / METRICS_FILE).open("ab", buffering=0) as file:
        append_whole(file.fileno(), (json.dumps({"step": step, **metrics}) + "\n").encode())


def rewind_metrics(folder: Path, step: int) -> None:
    """Remove the metrics after a step, from which the run resumes."""
    keep_before(folder / METRICS_FILE, step + 1)


def read_metrics(folder: Path) -> dict[int, dict[str, Any]]:
    """All metrics of a run by step; the later ones if a step was trained twice."""
    path = folder / METRICS_FILE
    return _parse(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}


def read_latest_metrics(folder: Path) -> dict[str, Any] | None:
    """The metrics of the last step. Reads the end of the file only, which grows to many megabytes
    and is polled twice a second."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        metrics = _parse(file.read().decode(errors="replace"))
    return metrics[max(metrics)] if metrics else None


def _parse(lines: str) -> dict[int, dict[str, Any]]:
    steps: dict[int, dict[str, Any]] = {}
    for line in lines.splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # torn, or begins before the tail
            metrics = json.loads(line)
            if isinstance(metrics, dict) and type(metrics.get("step")) is int:
                numbers = {k: value for k, value in metrics.items() if _is_number(value)}
                steps.setdefault(metrics["step"], {}).update(numbers)
    return steps


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
