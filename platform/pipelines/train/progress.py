"""What a person sees while runs train: bars on a terminal, plain lines otherwise, on stderr.

It only reads the figures that each run appends to its folder, so it works for a run in this
process, under Ray Train or under Ray Tune alike.
"""

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from derain.training.ledger import keep_before

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
LINE_EVERY_S = 15.0
POLL_EVERY_S = 0.5
TAIL_BYTES = 2**14
"""Of the figures' file, what is read to find the newest ones: dozens of lines."""


@contextlib.contextmanager
def watch(folders: Mapping[str, Path], steps: int) -> Iterator[None]:
    """Show the progress of runs, by name, until the block ends."""
    stop = threading.Event()
    console = Console(stderr=True)
    show = _Bars(steps, console) if console.is_terminal else _Lines(steps)
    thread = threading.Thread(target=_follow, args=(folders, show, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def write_metrics(folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Add what a run has after a step."""
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **figures}) + "\n")


def rewind_metrics(folder: Path, step: int) -> None:
    """Strike what came after a step: the run goes on from there."""
    keep_before(folder / METRICS_FILE, step + 1)


def read_metrics(folder: Path) -> dict[int, dict[str, Any]]:
    """The figures of a run by step; of a step that was done twice the later ones."""
    path = folder / METRICS_FILE
    return _parsed(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _latest(folder: Path) -> dict[str, Any] | None:
    """The newest figures, from the end of a file that is looked at twice a second and grows to many
    megabytes."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        figures = _parsed(file.read().decode(errors="replace"))
    return figures[max(figures)] if figures else None


def _parsed(lines: str) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):  # a line that a kill has torn, or that begins earlier
            figures = json.loads(line)
            found.setdefault(figures["step"], {}).update(figures)
    return found


def _follow(folders: Mapping[str, Path], show: "_Bars | _Lines", stop: threading.Event) -> None:
    """Show the newest figures of every run, a last time after the end."""
    with show:
        ended = False
        while not ended:
            ended = stop.wait(POLL_EVERY_S)
            for name, folder in folders.items():
                latest = _latest(folder)
                if latest is not None:
                    show(name, latest)


class _Bars:
    """One bar a run, for a terminal."""

    def __init__(self, steps: int, console: Console) -> None:
        def whole(width: int) -> Column:  # on 80 columns names and figures are what is cut
            return Column(min_width=width, no_wrap=True)

        self._steps = steps
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn(
                "{task.completed}/{task.total}", table_column=whole(2 * len(f"{steps}") + 1)
            ),
            TimeRemainingColumn(table_column=whole(len("0:00:00"))),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, name: str, latest: Mapping[str, Any]) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=self._steps, figures="")
        self._progress.update(
            self._tasks[name], completed=latest["step"], figures=_described(latest)
        )


class _Lines:
    """A line a run now and then, for a file or a pipe."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._shown: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, name: str, latest: Mapping[str, Any]) -> None:
        step, shown_at = self._shown.get(name, (0, -math.inf))
        now = time.monotonic()
        due = now - shown_at >= LINE_EVERY_S or latest["step"] == self._steps
        if latest["step"] > step and due:
            self._shown[name] = (latest["step"], now)
            log.info("%s: step %d/%d, %s", name, latest["step"], self._steps, _described(latest))


def _described(figures: Mapping[str, Any]) -> str:
    scored = f", PSNR-Y {figures['psnr_y']:.3f} dB" if "psnr_y" in figures else ""
    return f"loss {figures['loss']:.4f}, {figures['steps_per_s']:.1f} steps/s{scored}"
