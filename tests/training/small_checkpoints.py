"""Checkpoints that take a millisecond to write."""

from pathlib import Path

import torch

from derain.config import Config
from derain.training import checkpoint
from derain.training.checkpoint import State

CONFIG = Config.model_validate(
    {"name": "run", "model": {"name": "fclip_unet"}, "train": {"steps": 3}}
)


def save(run: Path, step: int, size: int = 4) -> Path:
    """Write a whole checkpoint of a linear layer of `size` x `size` weights."""
    state = State(step, 1, 8, 0, CONFIG.digest(), ("abc",), {"encoder": "x"}, {"first": 1.0})
    weights = torch.nn.Linear(size, size)
    optimizer = torch.optim.AdamW(weights.parameters())
    weights(torch.ones(1, size)).sum().backward()
    optimizer.step()
    return checkpoint.save(
        run, CONFIG, state,
        model=weights.state_dict(), ema=None, optimizer=optimizer.state_dict(),
    )  # fmt: skip
