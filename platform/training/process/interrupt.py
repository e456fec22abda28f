"""Requests to a running run: stop, or save at once because of a preemption."""

import time
from collections.abc import Callable
from pathlib import Path

STOP_FILE = "stop"
"""A file of this name in a run's folder asks the run to save and stop."""
STOP_CHECK_INTERVAL_S = 0.5


def request_stop(run: Path) -> None:
    """Ask all processes of a run, on any machine, to save a checkpoint and stop."""
    run.mkdir(parents=True, exist_ok=True)
    (run / STOP_FILE).touch()


def stop_requested(run: Path) -> bool:
    """True from `request_stop` until the run is started again."""
    return (run / STOP_FILE).exists()


def clear_stop_request(run: Path) -> None:
    """Remove the request, before the run is started again."""
    (run / STOP_FILE).unlink(missing_ok=True)


class Interrupt:
    """The requests as one rank sees them.

    Any rank may see a request to stop first; the loop passes it on. A preemption makes the run save
    at once and continue.
    """

    def __init__(
        self,
        run: Path | None = None,
        preemption_near: Callable[[], bool] | None = None,
        every_s: float = 5,
    ) -> None:
        """`run`: the folder in which to look for STOP_FILE. `preemption_near` is called every
        `every_s` seconds, on all ranks at the same step."""
        self._run = run
        self._preemption_near = preemption_near
        self._every_s = every_s
        self._stop_checked_at = self._preemption_checked_at = time.monotonic()
        self._stop = self._saved = False

    def stop_requested(self) -> bool:
        """True once the run's folder has STOP_FILE."""
        now = time.monotonic()
        if self._run is not None and now - self._stop_checked_at >= STOP_CHECK_INTERVAL_S:
            self._stop_checked_at = now
            self._stop = self._stop or stop_requested(self._run)
        return self._stop

    def check_due(self) -> bool:
        """True when it is time to call `save_requested` again."""
        elapsed_s = time.monotonic() - self._preemption_checked_at
        return self._preemption_near is not None and elapsed_s >= self._every_s

    def save_requested(self) -> bool:
        """True once, when a preemption is near; all ranks must call this at the same step."""
        assert self._preemption_near is not None
        self._preemption_checked_at = time.monotonic()
        first = self._preemption_near() and not self._saved
        self._saved = self._saved or first
        return first
