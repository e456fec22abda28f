"""Where a run computes: its device, how images lie in its memory, batches that are put there."""

import numpy as np
import torch
from torch import Tensor

from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch
from derain.errors import UsageError
from derain.models.shapes import image_batch


def pick_device(train: TrainConfig) -> torch.device:
    """The device that the config asks for; never another one in its place."""
    return device_named(train.device, "train.device", "--set train.device=cpu")


def device_named(
    name: str, option: str = "--device", instead: str = "--device cpu"
) -> torch.device:
    """`auto` (CUDA where there is one), `cpu` or `cuda`; `option` is who asks, for the message.

    Raises UsageError for CUDA where there is none: no work moves to the CPU unasked.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UsageError(
            f"{option} is cuda, but torch finds no CUDA device here. "
            f"Run on a GPU machine, or give {instead}."
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and found) else "cpu")


def layout(train: TrainConfig) -> torch.memory_format:
    """How feature maps and convolutions' weights lie in memory."""
    return torch.channels_last if train.channels_last else torch.contiguous_format


def to_device(batch: Batch[np.ndarray], train: TrainConfig) -> Batch[Tensor]:
    """The batch on a run's device, NCHW, float32 in [0, 1]."""
    device, wanted = pick_device(train), layout(train)

    def tensor(images: np.ndarray) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(images))
        if device.type == "cuda":  # torch keeps it until the copy, which nobody waits for, is done
            host = host.pin_memory()
        return image_batch(host.to(device, non_blocking=True), wanted)

    rain, clean = tensor(batch.rain), tensor(batch.clean)
    return Batch(rain, clean, ids=batch.ids, share=batch.share, following=batch.following)


def seed_all(device: torch.device, seed: int) -> None:
    """Begin the chance of a run's device, and of the CPU, at a seed.

    Not by torch.manual_seed: for every kind of device that is not there it takes down the stack, in
    case it comes, which takes 0.08 ms in a shallow one.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
