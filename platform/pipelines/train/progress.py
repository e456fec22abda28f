"""Progress of running runs on stderr: bars on a terminal, plain log lines otherwise.

It only reads the metrics files in the folders of the runs that are under way, so it works the same
for runs in this process, under Ray Train and under Ray Tune, however many a sweep has.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from derain.evaluation.metric_names import title
from derain.pipelines.train.metrics_file import read_latest_metrics

log = logging.getLogger(__name__)

LINE_EVERY_S = 15.0
POLL_EVERY_S = 0.5
MOST_BARS = 24
"""The bars of runs that have ended make room for others, the oldest first."""

ToShow = Callable[[], Mapping[str, Path]]
"""The folders, by name, of the runs that are under way or have ended since it was last asked."""


@contextlib.contextmanager
def show_progress(to_show: ToShow, steps: int) -> Iterator[None]:
    """Show the progress of runs until the block ends."""
    stop = threading.Event()
    console = Console(stderr=True)
    display = _Bars(steps, console) if console.is_terminal else _Lines(steps)
    thread = threading.Thread(target=_poll, args=(to_show, display, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _poll(to_show: ToShow, display: "_Bars | _Lines", stop: threading.Event) -> None:
    """Show the latest metrics of the runs, one last time after `stop`."""
    with display:
        stopped = False
        while not stopped:
            stopped = stop.wait(POLL_EVERY_S)
            folders = to_show()
            for name, folder in folders.items():
                latest = read_latest_metrics(folder)
                if latest is not None:
                    display.update(name, latest)
            display.keep(folders)


class _Bars:
    """A progress bar per run, for a terminal."""

    def __init__(self, steps: int, console: Console) -> None:
        def uncut(width: int) -> Column:  # on 80 columns only names and metrics are cut off
            return Column(min_width=width, no_wrap=True)

        self._steps = steps
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn(
                "{task.completed}/{task.total}", table_column=uncut(2 * len(f"{steps}") + 1)
            ),
            TimeRemainingColumn(table_column=uncut(len("0:00:00"))),
            TextColumn("{task.fields[metrics]}"),
            console=console,
        )

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, name: str, latest: Mapping[str, Any]) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=self._steps, metrics="")
        self._progress.update(self._tasks[name], completed=latest["step"], metrics=_summary(latest))

    def keep(self, running: Mapping[str, Path]) -> None:
        """Remove the oldest bars of runs that have ended, where there are too many."""
        ended = [name for name in self._tasks if name not in running]
        for name in ended[: max(0, len(self._tasks) - MOST_BARS)]:
            self._progress.remove_task(self._tasks.pop(name))


class _Lines:
    """A log line per run every LINE_EVERY_S, for a file or a pipe."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._shown: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, name: str, latest: Mapping[str, Any]) -> None:
        step, shown_at = self._shown.get(name, (0, -math.inf))
        now = time.monotonic()
        due = now - shown_at >= LINE_EVERY_S or latest["step"] == self._steps
        if latest["step"] > step and due:
            self._shown[name] = (latest["step"], now)
            log.info("%s: step %d/%d, %s", name, latest["step"], self._steps, _summary(latest))

    def keep(self, running: Mapping[str, Path]) -> None:
        """Forget the runs that have ended."""
        self._shown = {name: shown for name, shown in self._shown.items() if name in running}


def _summary(metrics: Mapping[str, Any]) -> str:
    shown = [name for name in metrics if name.startswith("psnr_")]
    psnr = "".join(f", {title(name)} {metrics[name]:.3f} dB" for name in shown)
    crops = f"{metrics['train_psnr']:.2f} dB on crops, " if "train_psnr" in metrics else ""
    return f"{crops}loss {metrics['loss']:.4f}, {metrics['steps_per_s']:.1f} steps/s{psnr}"
