"""A training process is killed 100 times: no sample is lost or repeated, the weights are the same.

997 samples x 3 epochs in batches of 4, with 0, 1 and 2 loader processes, on one core. The training
processes are forked from this one, which has imported torch, so that they start at once.
"""

import os
import signal
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from derain.config import Config
from derain.training import checkpoint
from derain.training.ledger import LEDGER, read_ledger
from tests.soak.in_process import EPOCHS, SAMPLES, config, train

KILLS = {0: 34, 1: 33, 2: 33}
LONGEST_LIFE = 24
"""Most steps that a process takes, after the checkpoint that it started from, before its kill."""


def fork(config: Config, processes: int) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(config, processes)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ledger_lines(folder: Path) -> list[dict]:
    return read_ledger(folder)


def kill_after(child: int, ledger: Path, steps: int, delay_s: float) -> None:
    """Kill a process `delay_s` after the ledger has reached `steps` lines."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= steps:
            break
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the process ended by itself"
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = config(tmp_path_factory.mktemp("uninterrupted"))
    child = fork(wanted, 0)
    assert os.waitpid(child, 0)[1] == 0
    return wanted.folder


@pytest.mark.parametrize("processes", KILLS)
def test_a_hundred_kills_change_nothing(
    tmp_path: Path, uninterrupted: Path, processes: int
) -> None:
    rng = np.random.default_rng(processes)
    wanted, while_saving, first = config(tmp_path), 0, 0
    start = time.monotonic()
    for _ in range(KILLS[processes]):
        child = fork(wanted, processes)
        target = first + int(rng.integers(1, LONGEST_LIFE))
        kill_after(child, wanted.folder / LEDGER, target, rng.uniform(0, 0.02))
        while_saving += bool(list(wanted.folder.glob("checkpoints/.*.tmp")))
        saved = checkpoint.newest(wanted.folder)
        first = saved.state.step if saved else 0
    assert os.waitpid(fork(wanted, processes), 0)[1] == 0
    seconds = time.monotonic() - start
    print(f"\n{processes} loader processes: {KILLS[processes]} kills, {while_saving} while saving")
    print(f"{seconds:.0f} s, weights {checkpoint.newest(wanted.folder).weights_sha256()[:16]}")
    for epoch in range(EPOCHS):
        ids = [
            id_
            for line in ledger_lines(wanted.folder)
            if line["epoch"] == epoch
            for id_ in line["ids"]
        ]
        assert sorted(ids) == list(range(SAMPLES))
    assert ledger_lines(wanted.folder) == ledger_lines(uninterrupted)
    one, other = checkpoint.newest(wanted.folder), checkpoint.newest(uninterrupted)
    assert one is not None
    assert other is not None
    assert one.weights_sha256() == other.weights_sha256()
    assert one.state.loss == other.state.loss
    for name, tensor in one.model().items():
        assert torch.equal(tensor, other.model()[name])
