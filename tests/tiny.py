"""A small run without data files, Ray or MLflow, for tests of its parts."""

import faulthandler
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from benchmarks._small import NETWORK
from derain.config import Config
from derain.data.loading.loader import Loader
from derain.data.loading.order import Recipe
from derain.training import checkpoint
from derain.training.factory import build_network, loss_of
from derain.training.ledger import read_ledger
from derain.training.loop import Outcome, Run, drive
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer

TRAIN = {
    "batch_size": 4,
    "crop_px": 16,
    "lr": 1e-3,
    "device": "cpu",
    "cpu_threads": 1,
    "checkpoint_every_steps": 1,
    "ledger": True,
    "log_every_steps": 1,
}

TINY = {
    "name": "run",
    "model": NETWORK,
    "train": {**TRAIN, "steps": 9, "ema_decay": 0.9, "keep_checkpoints": 100},
    "loss": {"perceptual": "encoder", "lambda_p": 0.1},
}


BATCHNORM_NETWORK = {
    "name": "rdmc",
    "widths": [4, 4],
    "dilations": [1],
    "recursions": 1,
}
"""A network whose buffers change in training."""


class Pixels:
    """Small random pairs."""

    def __init__(self, count: int = 11) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, sample: int) -> np.ndarray:
        return np.random.default_rng(sample).integers(0, 256, (2, 24, 20, 3), dtype=np.uint8)


def config(folder: Path, **train: object) -> Config:
    tree = {**TINY, "output_dir": str(folder), "train": {**TINY["train"], **train}}
    return Config.model_validate(tree)


def without_noise(network: nn.Module) -> nn.Module:
    """The network without LDFPS, whose noise differs between ranks and micro-batches."""
    network.ldfps = nn.Identity()
    return network


def ranks(work: Callable[..., None], world: int, *arguments: object) -> None:
    """Call `work(number, world, *arguments)` in `world` processes, which can form a group."""
    # Forked from a process that has imported torch, because importing takes longer than their work.
    multiprocessing.set_forkserver_preload(["tests.tiny", "torch._dynamo"])  # for the optimiser
    mp.start_processes(_traced, (work, world, *arguments), nprocs=world, start_method="forkserver")


def _traced(number: int, work: Callable[..., None], world: int, *arguments: object) -> None:
    faulthandler.enable()  # a rank that ends by a signal says where
    work(number, world, *arguments)


def loader(config: Config, rank: Rank = Rank()) -> Loader:  # noqa: B008
    """The loader of a rank, over `Pixels`."""
    recipe = Recipe(sizes=(11,), seed=config.data_seed)
    stages = config.train.stages
    return Loader([Pixels()], recipe, stages, rank=rank.number, world=rank.world)


def make_run(
    config: Config,
    metrics: list[Mapping[str, float]],
    *,
    rank: Rank = Rank(),  # noqa: B008
    network: nn.Module | None = None,
    manifests: Sequence[str] = ("abc",),
    **hooks: Any,
) -> Run:
    """A run that appends what it reports to `metrics`; `hooks` are further fields of Run."""
    network = network or build_network(config)
    loss = loss_of(config, network)
    return Run(
        config=config,
        trainer=Trainer(config, network, loss, device=torch.device("cpu"), rank=rank),
        folder=config.folder,
        report=lambda _, values: metrics.append(dict(values)),
        manifests=manifests,
        rank=rank,
        resume=checkpoint.newest(config.folder),
        **hooks,
    )


def run(
    config: Config,
    metrics: list[Mapping[str, float]] | None = None,
    *,
    rank: Rank = Rank(),  # noqa: B008
    network: nn.Module | None = None,
    **hooks: Any,
) -> Outcome:
    """Train, from the newest checkpoint if any; `hooks` are further fields of Run."""
    torch.set_num_threads(1)
    reported = metrics if metrics is not None else []
    made = make_run(config, reported, rank=rank, network=network, **hooks)
    drive(made, loader(config, rank).batch, config.train)
    return made.outcome()


def ledger(folder: Path) -> list[dict[str, Any]]:
    """The lines of all ranks in the ledger of the run in `folder`."""
    return read_ledger(folder / "run")


def assert_close(one: Path, several: Path) -> None:
    """Check that the newest checkpoints of two runs are equal up to rounding."""
    first, second = checkpoint.newest(one / "run"), checkpoint.newest(several / "run")
    assert first is not None
    assert second is not None
    assert second.state.loss == pytest.approx(first.state.loss, rel=1e-4)
    for expected, found in ((first.model(), second.model()), (first.ema(), second.ema())):
        assert expected is not None
        assert found is not None
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=2e-3)


def limit_crops(network: nn.Module, crops: int, seen: list[int]) -> nn.Module:
    """The network, which runs out of memory on batches of more than `crops` crops.

    It requests more from torch's allocator than any machine has, and appends the sizes of its
    batches to `seen`.
    """

    def allocate(_module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > crops:
            torch.empty(2**60, dtype=torch.uint8)

    network.register_forward_pre_hook(allocate)
    return network
