"""Why a run may have to save at once, or to stop before its end."""

import time
from collections.abc import Callable
from pathlib import Path

STOP_FILE = "stop"
"""A file of this name in a run's folder asks it to save and stop."""
LOOK_EVERY_S = 0.5


def ask_to_stop(run: Path) -> None:
    """Ask the processes of a run, wherever they are, to save a checkpoint and stop."""
    run.mkdir(parents=True, exist_ok=True)
    (run / STOP_FILE).touch()


def was_asked_to_stop(run: Path) -> bool:
    """True from `ask_to_stop` until the run begins again."""
    return (run / STOP_FILE).exists()


def forget_stop(run: Path) -> None:
    """Begin again."""
    (run / STOP_FILE).unlink(missing_ok=True)


class Interrupt:
    """What one rank knows of it. `warned` tells, on all ranks at once, that the end is near:
    the run then saves and goes on."""

    def __init__(
        self, run: Path | None = None, warned: Callable[[], bool] | None = None, every_s: float = 5
    ) -> None:
        """`run`: the folder to look at; `warned` is asked every `every_s` seconds."""
        self._run = run
        self._warned = warned
        self._every_s = every_s
        self._looked = self._asked = time.monotonic()
        self._stop = self._saved = False

    def stop(self) -> bool:
        """True once the run's folder says so."""
        now = time.monotonic()
        if self._run is not None and now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._stop = self._stop or was_asked_to_stop(self._run)
        return self._stop

    def due(self) -> bool:
        """True when `warned` should be asked again."""
        return self._warned is not None and time.monotonic() - self._asked >= self._every_s

    def save(self) -> bool:
        """True once, when the end is near; all ranks must ask at the same step."""
        assert self._warned is not None
        self._asked = time.monotonic()
        first = self._warned() and not self._saved
        self._saved = self._saved or first
        return first
