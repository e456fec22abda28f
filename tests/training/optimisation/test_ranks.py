"""Other optimisers than AdamW train on several ranks as on one, and resume from either."""

import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from derain.config import Config
from derain.training.factory import build_network
from derain.training.process.distributed import Rank
from tests.tiny import assert_close, config, ranks, run, without_noise

OPTIMIZERS: dict[str, Any] = {
    "sgd": {"name": "sgd", "momentum": 0.9},
    "nadam": "nadam",
    "own": "torch.optim:RMSprop",
}
MODES = ("ddp", "fsdp2")


def config_of(chosen: Any, folder: Path, steps: int, **train: Any) -> Config:
    base = config(folder, steps=steps, lr=1e-4, clip_norm=0.5, **train)
    return base.replaced({"train.optimizer": chosen}, "test")


def test_every_mode_trains_like_one_rank(tmp_path: Path) -> None:
    for name, chosen in OPTIMIZERS.items():
        single = config_of(chosen, tmp_path / name, 4)
        run(single, network=without_noise(build_network(single)))
    ranks(_train_on_rank, 2, tmp_path)
    for name, chosen in OPTIMIZERS.items():
        for mode in MODES:
            assert_close(tmp_path / name, tmp_path / f"{name}-{mode}")
        shutil.copytree(tmp_path / f"{name}-fsdp2", tmp_path / f"{name}-longer")
        for folder in (tmp_path / name, tmp_path / f"{name}-longer"):
            longer = config_of(chosen, folder, 6)
            run(longer, network=without_noise(build_network(longer)))
        assert_close(tmp_path / name, tmp_path / f"{name}-longer")


def _train_on_rank(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world
    )
    for name, chosen in OPTIMIZERS.items():
        for mode in MODES:
            spread = config_of(
                chosen, folder / f"{name}-{mode}", 4, num_workers=world, parallel=mode
            )
            network = without_noise(build_network(spread))
            run(spread, rank=Rank(number, world), network=network)
    dist.destroy_process_group()
