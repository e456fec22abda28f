"""A training process is killed 100 times: no sample is lost or repeated, the weights are the same.

997 samples x 3 epochs in batches of 4, with 0, 1 and 2 loader processes, on one core. The processes
are forked from this one, which has imported torch, so that a life costs what it trains.
"""

import json
import os
import signal
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from derain.config import Config
from derain.data.loading.loader import Loader
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import feed
from derain.training import checkpoint
from derain.training.factory import build_network, loss_of
from derain.training.ledger import LEDGER
from derain.training.loop import Run, follow
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer

SAMPLES, EPOCHS, BATCH = 997, 3, 4
KILLS = {0: 34, 1: 33, 2: 33}
LONGEST_LIFE = 24
"""Steps after the checkpoint that a process began with."""


class Pixels:
    """Small random pairs."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, sample: int) -> np.ndarray:
        return np.random.default_rng(sample).integers(0, 256, (2, 24, 20, 3), dtype=np.uint8)


def config(folder: Path) -> Config:
    steps = EPOCHS * -(-SAMPLES // BATCH)
    train = {"steps": steps, "batch_size": BATCH, "crop_px": 16, "device": "cpu", "lr": 1e-3}
    train |= {"ema_decay": 0.9, "ledger": True, "checkpoint_every_steps": 3, "log_every_steps": 100}
    model = {"name": "prenet", "recursions": 2, "width": 4}
    return Config.model_validate(
        {
            "name": "run",
            "output_dir": str(folder),
            "model": model,
            "train": train,
            "loss": {"perceptual": "none"},
        }
    )


def train(config: Config, processes: int) -> None:
    torch.set_num_threads(1)
    network = build_network(config)
    run = Run(
        config=config,
        trainer=Trainer(
            config, network, loss_of(config, network), device=torch.device("cpu"), rank=Rank()
        ),
        folder=config.folder,
        report=lambda *_: None,
        manifests=["abc"],
        resume=checkpoint.newest(config.folder),
    )
    recipe = Recipe(sizes=(SAMPLES,), seed=config.data_seed)
    loader = Loader([Pixels()], recipe, config.train.stages)
    with feed(loader, processes) as batch_at:
        follow(run.loop(), batch_at, config.train)


def forked(config: Config, processes: int) -> int:
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


def lines(folder: Path) -> list[dict]:
    found = []
    for line in (folder / LEDGER).read_text().splitlines():
        found.append(json.loads(line))
    return found


def kill_after(child: int, ledger: Path, steps: int, delay_s: float) -> None:
    """Kill a process once the ledger has so many lines, and a little later."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= steps:
            break
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = config(tmp_path_factory.mktemp("unbroken"))
    child = forked(wanted, 0)
    assert os.waitpid(child, 0)[1] == 0
    return wanted.folder


@pytest.mark.parametrize("processes", KILLS)
def test_a_hundred_kills_change_nothing(tmp_path: Path, unbroken: Path, processes: int) -> None:
    random = np.random.default_rng(processes)
    wanted, inside, begun = config(tmp_path), 0, 0
    began = time.monotonic()
    for _ in range(KILLS[processes]):
        child = forked(wanted, processes)
        target = begun + int(random.integers(1, LONGEST_LIFE))
        kill_after(child, wanted.folder / LEDGER, target, random.uniform(0, 0.02))
        inside += bool(list(wanted.folder.glob("checkpoints/.*.tmp")))
        saved = checkpoint.newest(wanted.folder)
        begun = saved.state.step if saved else 0
    assert os.waitpid(forked(wanted, processes), 0)[1] == 0
    seconds = time.monotonic() - began
    print(f"\n{processes} loader processes: {KILLS[processes]} kills, {inside} inside a checkpoint")
    print(f"{seconds:.0f} s, weights {checkpoint.newest(wanted.folder).weights_sha256()[:16]}")
    for epoch in range(EPOCHS):
        ids = [
            id_ for line in lines(wanted.folder) if line["epoch"] == epoch for id_ in line["ids"]
        ]
        assert sorted(ids) == list(range(SAMPLES))
    assert lines(wanted.folder) == lines(unbroken)
    one, other = checkpoint.newest(wanted.folder), checkpoint.newest(unbroken)
    assert one is not None
    assert other is not None
    assert one.weights_sha256() == other.weights_sha256()
    assert one.state.loss == other.state.loss
    for name, tensor in one.model().items():
        assert torch.equal(tensor, other.model()[name])
