"""What happens on SIGTERM: `prepare` stops at once, `train` saves a checkpoint and stops.

SIGHUP, which a terminal or an ssh connection sends when it closes, does the same, unless it is
ignored, as under `nohup`. Other commands have no handler of their own; a sweep can resume from its
journal. Python runs signal handlers in the main thread only, so in any other thread the blocks
below change nothing.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from derain.errors import StoppedError
from derain.training.process import interrupt

log = logging.getLogger(__name__)


@contextlib.contextmanager
def stopping_at_sigterm(message: str) -> Iterator[None]:
    """Leave the block at once on SIGTERM and raise StoppedError with this message."""
    try:
        with _on_sigterm(_exit):
            yield
    except SystemExit:
        raise StoppedError(message) from None


def _exit() -> None:
    raise SystemExit  # not an Exception: Ray Data would print its traceback


@contextlib.contextmanager
def saving_at_sigterm(run: Path) -> Iterator[None]:
    """On SIGTERM, ask all workers of the run in this folder to save a checkpoint and stop."""

    def ask() -> None:
        log.warning("SIGTERM: the run saves a checkpoint after its next step and stops")
        interrupt.request_stop(run)

    interrupt.clear_stop_request(run)
    with _on_sigterm(ask):
        yield


@contextlib.contextmanager
def _on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` on SIGTERM and SIGHUP, during the block and in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: action())
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
