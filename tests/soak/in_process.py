"""A small run in this process, without Ray, with loader processes if asked for."""

from pathlib import Path

import torch

from derain.config import Config
from derain.data.loading.loader import Loader
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import prefetch
from derain.training.loop import drive
from tests.tiny import Pixels, make_run

SAMPLES, EPOCHS, BATCH = 997, 3, 4


def config(folder: Path) -> Config:
    """The run: EPOCHS epochs of SAMPLES pairs, a checkpoint every 3 steps."""
    steps = EPOCHS * -(-SAMPLES // BATCH)
    train = {"steps": steps, "batch_size": BATCH, "crop_px": 16, "device": "cpu", "lr": 1e-3}
    train |= {"ema_decay": 0.9, "ledger": True, "checkpoint_every_steps": 3, "log_every_steps": 100}
    return Config.model_validate(
        {
            "name": "run",
            "output_dir": str(folder),
            "model": {"name": "prenet", "recursions": 2, "width": 4},
            "train": train,
            "loss": {"perceptual": "none"},
        }
    )


def train(config: Config, processes: int) -> None:
    """Train from the newest checkpoint to the end."""
    torch.set_num_threads(1)
    recipe = Recipe(sizes=(SAMPLES,), seed=config.data_seed)
    loader = Loader([Pixels(SAMPLES)], recipe, config.train.stages)
    with prefetch(loader, processes) as batch_at:
        drive(make_run(config, []), batch_at, config.train)
