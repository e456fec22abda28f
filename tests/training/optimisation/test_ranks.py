"""Other optimisers than AdamW train on several ranks as on one, and resume from either."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from derain.config import Config
from derain.training.factory import build_network
from derain.training.process.distributed import Rank
from tests.tiny import assert_close, config, ranks, run, without_noise

OPTIMIZERS: dict[str, Any] = {
    "fsdp2": {"name": "sgd", "momentum": 0.9},
    "ddp": "torch.optim:RMSprop",
}
"""By the mode that each is tried in."""


def config_of(chosen: Any, folder: Path, steps: int, **train: Any) -> Config:
    base = config(folder, steps=steps, lr=1e-4, clip_norm=0.5, **train)
    return base.replaced({"train.optimizer": chosen}, "test")


def test_several_ranks_train_like_one(tmp_path: Path) -> None:
    for mode, chosen in OPTIMIZERS.items():
        single = config_of(chosen, tmp_path / f"{mode}-one", 3)
        run(single, network=without_noise(build_network(single)))
    ranks(_train_on_rank, 2, tmp_path)
    for mode, chosen in OPTIMIZERS.items():
        assert_close(tmp_path / f"{mode}-one", tmp_path / mode)
        for folder in (tmp_path / f"{mode}-one", tmp_path / mode):
            longer = config_of(chosen, folder, 5)
            run(longer, network=without_noise(build_network(longer)))
        assert_close(tmp_path / f"{mode}-one", tmp_path / mode)


def _train_on_rank(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world
    )
    for mode, chosen in OPTIMIZERS.items():
        spread = config_of(chosen, folder / mode, 3, num_workers=world, parallel=mode)
        network = without_noise(build_network(spread))
        run(spread, rank=Rank(number, world), network=network)
    dist.destroy_process_group()
