"""A run that is asked to stop, or warned of a preemption, saves in time."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from derain.errors import StoppedError
from derain.training import checkpoint
from derain.training.process.interrupt import Interrupt, request_stop
from tests.tiny import config, ledger, run


class StopsAfterSteps(Interrupt):
    """Asks the run to stop through its folder, as another process would."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder)
        self._folder, self._left = folder, steps

    def stop_requested(self) -> bool:
        self._left -= 1
        if self._left == 0:
            request_stop(self._folder)
        return super().stop_requested()


def test_a_run_that_is_asked_to_stop_saves_and_can_resume(tmp_path: Path) -> None:
    run_config = config(tmp_path, steps=10**6, checkpoint_every_steps=10**6, ema_decay=None)
    metrics: list[Mapping[str, float]] = []
    folder = run_config.folder
    with pytest.raises(StoppedError, match="--resume run") as stopped:
        run(run_config, metrics, interrupt=StopsAfterSteps(folder, 4))
    assert stopped.value.exit_code == 143
    saved = checkpoint.newest(folder)
    assert saved is not None
    assert saved.state.step == len(metrics) == len(ledger(tmp_path))


def test_a_run_warned_of_a_preemption_saves_at_once_and_continues(tmp_path: Path) -> None:
    run_config = config(tmp_path, checkpoint_every_steps=10**6)
    outcome = run(run_config, interrupt=Interrupt(preemption_near=lambda: True, every_s=0))
    assert outcome.steps == 9
    kept = checkpoint.steps(run_config.folder)
    assert len(kept) == 2
    assert kept[0] <= 3


@pytest.mark.parametrize("step", [2, 3, 4, 5, 6])
def test_a_warning_is_noticed_at_any_step(tmp_path: Path, step: int) -> None:
    calls = iter(range(10**9))
    run_config = config(tmp_path, steps=16, checkpoint_every_steps=10**6, log_every_steps=5)
    run(run_config, interrupt=Interrupt(preemption_near=lambda: next(calls) >= step, every_s=0))
    kept = checkpoint.steps(run_config.folder)
    assert kept[0] < kept[1] == 16
