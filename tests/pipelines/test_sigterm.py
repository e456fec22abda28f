"""SIGTERM and SIGHUP: `prepare` stops at once, a run is asked to stop; handlers are restored."""

import signal
import threading
from pathlib import Path

import pytest

from derain.errors import StoppedError
from derain.pipelines.sigterm import saving_at_sigterm, stopping_at_sigterm
from derain.training.process.interrupt import request_stop, stop_requested

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])


@BOTH
def test_the_block_is_left_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    reached = []

    def work() -> None:
        with stopping_at_sigterm("run it again"):
            reached.append("the block")
            signal.raise_signal(number)
            reached.append("its end")

    with pytest.raises(StoppedError, match="run it again"):
        work()
    assert reached == ["the block"]
    assert signal.getsignal(number) == before


@BOTH
def test_a_run_is_asked_to_stop_and_the_block_continues(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    request_stop(tmp_path)  # by an earlier command
    with saving_at_sigterm(tmp_path):
        assert not stop_requested(tmp_path)
        signal.raise_signal(number)
        assert stop_requested(tmp_path)
    assert signal.getsignal(number) == before


def test_a_closed_terminal_is_ignored_under_nohup(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with saving_at_sigterm(tmp_path):
            signal.raise_signal(signal.SIGHUP)
            assert not stop_requested(tmp_path)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_after_ctrl_c_the_exit_code_is_130() -> None:
    with pytest.raises(StoppedError) as stopped, stopping_at_sigterm("run it again"):
        signal.raise_signal(signal.SIGINT)
    assert stopped.value.exit_code == 130
    assert StoppedError("again").exit_code == 143


def test_the_first_ctrl_c_asks_and_the_second_leaves_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, reached = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stopping_at_sigterm("continue"), saving_at_sigterm(tmp_path):
            signal.raise_signal(signal.SIGINT)
            reached.append(stop_requested(tmp_path))
            signal.raise_signal(signal.SIGTERM)  # a second request, but not of a person
            reached.append("still there")
            signal.raise_signal(signal.SIGINT)
            reached.append("never")

    with pytest.raises(StoppedError, match="continue") as stopped:
        work()
    assert reached == [True, "still there"]
    assert stopped.value.exit_code == 130
    assert "press Ctrl-C again to stop at once" in caplog.text
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_that_saved_after_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    def work() -> None:
        with saving_at_sigterm(tmp_path):
            signal.raise_signal(signal.SIGINT)
            raise StoppedError("saved")

    with pytest.raises(StoppedError, match="saved") as stopped:
        work()
    assert stopped.value.exit_code == 130


def test_other_threads_leave_the_handler_alone(tmp_path: Path) -> None:
    before, handlers = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopping_at_sigterm(""), saving_at_sigterm(tmp_path):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]
