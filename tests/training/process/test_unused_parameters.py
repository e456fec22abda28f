"""Ranks train a user-defined network that leaves parameters unused, always or in some steps."""

from pathlib import Path

import torch
import torch.distributed as dist

from derain.config import Config
from derain.training import checkpoint
from derain.training.process.distributed import Rank
from tests.tiny import config, ranks, run

NETWORKS = "tests.training.process.skipping_networks"


def user_defined(folder: Path, network: str, **train: object) -> Config:
    values = {"model": {"name": f"{NETWORKS}:{network}"}, "loss": {"perceptual": "none"}}
    return config(folder, steps=8, checkpoint_every_steps=8, **train).replaced(values, "test")


def _train_on_rank(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world
    )
    for network in ("Unused", "Sometimes"):
        for parts in (None, 1):
            name = f"{network}-{parts}"
            run_config = user_defined(
                folder / name, network, num_workers=world, micro_batch_size=parts
            )
            run(run_config, rank=Rank(number, world))
    dist.destroy_process_group()


def test_ddp_does_not_wait_for_parameters_that_a_step_does_not_use(tmp_path: Path) -> None:
    ranks(_train_on_rank, 2, tmp_path)
    run(user_defined(tmp_path / "one", "Unused"))
    alone = checkpoint.newest(tmp_path / "one" / "run")
    assert alone is not None
    for name in ("Unused-None", "Unused-1"):
        together = checkpoint.newest(tmp_path / name / "run")
        assert together is not None
        for key, tensor in alone.model().items():
            torch.testing.assert_close(together.model()[key], tensor, atol=2e-5, rtol=2e-3)
    for name in ("Sometimes-None", "Sometimes-1"):
        assert checkpoint.newest(tmp_path / name / "run") is not None
