"""A small run without data files, Ray or MLflow, for the tests of its parts."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from derain.config import Config
from derain.data.loading.loader import Loader
from derain.data.loading.order import Recipe
from derain.training import checkpoint
from derain.training.factory import build_network, loss_of
from derain.training.loop import Outcome, Run, follow
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer

NETWORK = {
    "name": "fclip_unet",
    "encoder_weights": "random",
    "encoder_width": 4,
    "encoder_layers": [1, 1, 1, 1],
    "decoder_widths": [8, 8, 8, 8, 8],
    "decoder_depths": [1, 1, 1, 1, 1],
    "layer_scale": 0.1,
    "output": "residual",
}
"""A network that takes milliseconds a step."""

TINY = {
    "name": "run",
    "model": NETWORK,
    "train": {
        "steps": 9,
        "batch_size": 4,
        "crop_px": 16,
        "lr": 1e-3,
        "device": "cpu",
        "cpu_threads": 1,
        "ema_decay": 0.9,
        "checkpoint_every_steps": 1,
        "keep_checkpoints": 100,
        "ledger": True,
        "log_every_steps": 1,
    },
    "loss": {"perceptual": "encoder", "lambda_p": 0.1},
}


class Pixels:
    """Eleven small random pairs."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, sample: int) -> np.ndarray:
        return np.random.default_rng(sample).integers(0, 256, (2, 24, 20, 3), dtype=np.uint8)


def config(folder: Path, **train: object) -> Config:
    tree = {**TINY, "output_dir": str(folder), "train": {**TINY["train"], **train}}
    return Config.model_validate(tree)


def without_noise(network: nn.Module) -> nn.Module:
    """LDFPS draws its noise per rank and per micro-batch, so it is off where these are compared."""
    network.ldfps = nn.Identity()
    return network


def ranks(work: Callable[..., None], world: int, *arguments: object) -> None:
    """Call `work(number, world, *arguments)` in so many processes that can form a group."""
    # Forked from one process that has imported torch: that takes longer than what they do.
    multiprocessing.set_forkserver_preload(["tests.tiny", "torch._dynamo"])  # for the optimiser
    mp.start_processes(work, (world, *arguments), nprocs=world, start_method="forkserver")


def loader(config: Config, rank: Rank = Rank()) -> Loader:  # noqa: B008
    recipe = Recipe(sizes=(11,), seed=config.data_seed)
    stages = config.train.stages
    return Loader([Pixels()], recipe, stages, rank=rank.number, world=rank.world)


def a_run(
    config: Config,
    figures: list[Mapping[str, float]],
    *,
    rank: Rank = Rank(),  # noqa: B008
    network: nn.Module | None = None,
    manifests: Sequence[str] = ("abc",),
    **hooks: Any,
) -> Run:
    network = network or build_network(config)
    loss = loss_of(config, network)
    return Run(
        config=config,
        trainer=Trainer(config, network, loss, device=torch.device("cpu"), rank=rank),
        folder=config.folder,
        report=lambda _, values: figures.append(dict(values)),
        manifests=manifests,
        rank=rank,
        resume=checkpoint.newest(config.folder),
        **hooks,
    )


def run(
    config: Config,
    figures: list[Mapping[str, float]] | None = None,
    *,
    rank: Rank = Rank(),  # noqa: B008
    network: nn.Module | None = None,
    **hooks: Any,
) -> Outcome:
    """Train from the newest checkpoint on; `hooks` are further fields of Run."""
    torch.set_num_threads(1)
    reported = figures if figures is not None else []
    loop = a_run(config, reported, rank=rank, network=network, **hooks).loop()
    return follow(loop, loader(config, rank).batch, config.train)


def assert_close(one: Path, several: Path) -> None:
    """The newest checkpoints of two runs are equal, to rounding."""
    first, second = checkpoint.newest(one / "run"), checkpoint.newest(several / "run")
    assert first is not None
    assert second is not None
    assert second.state.loss == pytest.approx(first.state.loss, rel=1e-4)
    for expected, found in ((first.model(), second.model()), (first.ema(), second.ema())):
        assert expected is not None
        assert found is not None
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=2e-3)


def room_for(network: nn.Module, crops: int, seen: list[int]) -> nn.Module:
    """The network, for whose larger batches torch's own allocator is asked for what nobody has; it
    notes how many crops it is given."""

    def ask(_module: nn.Module, given: tuple[torch.Tensor]) -> None:
        seen.append(len(given[0]))
        if len(given[0]) > crops:
            torch.empty(2**60, dtype=torch.uint8)

    network.register_forward_pre_hook(ask)
    return network
