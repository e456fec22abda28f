"""Every network trains under every parallel mode, and all modes train it alike."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from derain.config import Config
from derain.training import checkpoint
from derain.training.process.distributed import Rank
from tests.models.networks.small_baselines import OPTIONS
from tests.models.networks.small_clip_rpn import SMALL
from tests.tiny import assert_close, config, ranks, run

NETWORKS: dict[str, dict[str, Any]] = {
    "fclip_unet": {},
    "clip_rpn": {**SMALL, "routing": "random"},
    "rdmc": {"widths": (4, 8), "dilations": (1, 2), "recursions": 2, "gate": "learned"},
    **OPTIONS,
}
MODES = ("ddp", "fsdp2")


def config_of(name: str, folder: Path, **train: Any) -> Config:
    base = config(folder, steps=1, crop_px=16, checkpoint_every_steps=1, **train)
    if not NETWORKS[name]:
        return base
    changes = {"model": {"name": name, **NETWORKS[name]}, "loss": {"perceptual": "none"}}
    return base.replaced(changes, "test")


def test_every_network_trains_alike_under_every_mode(tmp_path: Path) -> None:
    ranks(_train_on_rank, 2, tmp_path)
    for name in NETWORKS:
        one, other = (tmp_path / name / mode for mode in MODES)
        assert checkpoint.newest(one / "run") is not None, name
        assert_close(one, other)


def _train_on_rank(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world
    )
    for name in NETWORKS:
        for mode in MODES:
            chosen = config_of(name, folder / name / mode, num_workers=world, parallel=mode)
            run(chosen, rank=Rank(number, world))
    dist.destroy_process_group()
