"""What happens on SIGTERM and Ctrl-C: `prepare` stops at once, `train` and `sweep` save a
checkpoint of every run that trains and stop. A second Ctrl-C stops these at once, too.

SIGHUP, which a terminal or an ssh connection sends when it closes, does what SIGTERM does, unless
it is ignored, as under `nohup`. Exit codes are 143, after Ctrl-C 130. Python runs signal handlers
in the main thread only, so in any other thread the blocks below change nothing.
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

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells give it."""


@contextlib.contextmanager
def stopping_at_sigterm(message: str) -> Iterator[None]:
    """Leave the block at once on SIGTERM or Ctrl-C and raise StoppedError with this message."""
    try:
        with on_signals(_exit):
            yield
    except SystemExit as ended:
        raise _stopped(StoppedError(message), ended.code == INTERRUPTED) from None


def _exit(number: int) -> None:
    # Not an Exception: Ray Data would print its traceback.
    raise SystemExit(INTERRUPTED if number == signal.SIGINT else StoppedError.exit_code)


@contextlib.contextmanager
def saving_at_sigterm(run: Path) -> Iterator[None]:
    """On SIGTERM, ask all workers of the run in this folder to save a checkpoint and stop."""
    interrupt.clear_stop_request(run)
    with asking_at_sigterm("the run saves", lambda: interrupt.request_stop(run)):
        yield


@contextlib.contextmanager
def asking_at_sigterm(who_saves: str, ask: Callable[[], object]) -> Iterator[None]:
    """On SIGTERM or Ctrl-C call `ask`, which makes the block end with StoppedError after a while.

    A second Ctrl-C leaves the block at once, for a `stopping_at_sigterm` around it to explain.
    """
    interrupted = False

    def on_signal(number: int) -> None:
        nonlocal interrupted
        if number == signal.SIGINT and interrupted:
            _exit(number)
        interrupted = interrupted or number == signal.SIGINT
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        log.warning(
            "%s: %s a checkpoint after the step at hand and stops%s", name, who_saves, again
        )
        ask()

    try:
        with on_signals(on_signal):
            yield
    except StoppedError as error:
        raise _stopped(error, interrupted) from None


def _stopped(error: StoppedError, interrupted: bool) -> StoppedError:
    if interrupted:
        error.exit_code = INTERRUPTED
    return error


@contextlib.contextmanager
def on_signals(action: Callable[[int], None]) -> Iterator[None]:
    """Call `action` on SIGTERM, SIGHUP and SIGINT, during the block and in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda number, _: action(number))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
