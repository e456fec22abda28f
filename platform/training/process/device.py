"""The device of a run, the memory layout of images on it, and batches moved there."""

import numpy as np
import torch
from torch import Tensor

from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch
from derain.errors import UsageError
from derain.models.shapes import image_batch


def pick_device(train: TrainConfig) -> torch.device:
    """The device that the config names; never a different one in its place."""
    return device_named(train.device, "train.device", "--set train.device=cpu")


def device_named(
    name: str, option: str = "--device", alternative: str = "--device cpu"
) -> torch.device:
    """`auto` (CUDA if available), `cpu` or `cuda`; the message names `option` and `alternative`.

    This is the only place that chooses a device. A CUDA device has its number, that of the current
    one: Ray Train makes another one current in each worker of a node.

    Raises UsageError for `cuda` without a CUDA device: work never moves to the CPU silently.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError(
            f"{option} is cuda, but torch finds no CUDA device. "
            f"Run on a machine with a GPU, or give {alternative}."
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def memory_format(train: TrainConfig) -> torch.memory_format:
    """The memory layout of feature maps and convolution weights."""
    return torch.channels_last if train.channels_last else torch.contiguous_format


def to_device(batch: Batch[np.ndarray], train: TrainConfig) -> Batch[Tensor]:
    """The batch on a run's device, NCHW, float32 in [0, 1]."""
    device, layout = pick_device(train), memory_format(train)

    def tensor(images: np.ndarray) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(images))
        if device.type == "cuda":  # torch keeps it alive until the asynchronous copy is done
            host = host.pin_memory()
        return image_batch(host.to(device, non_blocking=True), layout)

    rain, clean = tensor(batch.rain), tensor(batch.clean)
    return Batch(rain, clean, ids=batch.ids, share=batch.share, following=batch.following)


def seed_all(device: torch.device, seed: int) -> None:
    """Seed the random generators of a run's device and of the CPU.

    Not with torch.manual_seed: for every kind of device that is absent it records the call stack,
    in case the device appears later, which takes 0.08 ms even in a shallow stack.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
