"""A process that hangs is ended, and its stacks are kept."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch.multiprocessing as mp

from derain.training.loop import drive
from tests.tiny import config, loader, make_run, ranks, run


def test_a_process_that_hangs_writes_its_stacks_and_ends(tmp_path: Path) -> None:
    with pytest.raises(mp.ProcessExitedException) as ended:
        ranks(_hang, 1, tmp_path)
    assert ended.value.exit_code == 1
    assert "_wait_forever" in (tmp_path / "run" / "stacks-rank0.txt").read_text()
    assert run(config(tmp_path)).resumed_from_step == 2
    assert not (tmp_path / "run" / "stacks-rank0.txt").exists()
    kept = (tmp_path / "run" / "stacks-rank0-1.txt").read_text()
    assert "_wait_forever" in kept


def _hang(_number: int, _world: int, folder: Path) -> None:
    def report(done: int, _metrics: Mapping[str, float]) -> None:
        if done == 3:
            _wait_forever()

    run_config = config(folder, hang_timeout_s=5.0)
    drive(
        replace(make_run(run_config, []), report=report), loader(run_config).batch, run_config.train
    )


def _wait_forever() -> None:
    threading.Event().wait()
