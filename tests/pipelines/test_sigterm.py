"""SIGTERM: `prepare` stops at once, a run is asked to stop, and the handler is restored."""

import signal
import threading
from pathlib import Path

import pytest

from derain.errors import StoppedError
from derain.pipelines.sigterm import saving_at_sigterm, stopping_at_sigterm
from derain.training.process.interrupt import request_stop, stop_requested


def test_the_block_is_left_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    reached = []

    def work() -> None:
        with stopping_at_sigterm("run it again"):
            reached.append("the block")
            signal.raise_signal(signal.SIGTERM)
            reached.append("its end")

    with pytest.raises(StoppedError, match="run it again"):
        work()
    assert reached == ["the block"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_is_asked_to_stop_and_the_block_continues(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    request_stop(tmp_path)  # by an earlier command
    with saving_at_sigterm(tmp_path):
        assert not stop_requested(tmp_path)
        signal.raise_signal(signal.SIGTERM)
        assert stop_requested(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_leave_the_handler_alone(tmp_path: Path) -> None:
    before, handlers = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopping_at_sigterm(""), saving_at_sigterm(tmp_path):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]
