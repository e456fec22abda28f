"""Progress over images on stderr: a bar on a terminal, a log line every 15 s otherwise."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_EVERY_S = 15.0


@contextlib.contextmanager
def progress(items: int, verb: str, what: str = "images") -> Iterator[Callable[[], None]]:
    """A function to call after each of so many `what`; `verb` is the command's name."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(items, verb, what).advance
        return
    columns = (
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TextColumn(what),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        bar = shown.add_task(verb, total=items or None)
        yield lambda: shown.advance(bar)


class _Lines:
    """Log lines with the rate since the start, and the time that the rest takes at this rate."""

    def __init__(self, items: int, verb: str, what: str) -> None:
        self._items, self._done, self._verb, self._what = items, 0, verb, what
        self._began = self._logged = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._logged >= LINE_EVERY_S:
            self._logged = now
            rate = self._done / (now - self._began)
            left_s = max(0, self._items - self._done) / rate
            log.info(
                "%s: %d of %d %s, %.3g %s/s, %d:%02d min left",
                self._verb, self._done, self._items, self._what, rate, self._what,
                *divmod(round(left_s), 60),
            )  # fmt: skip
