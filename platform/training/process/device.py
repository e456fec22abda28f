"""The device of a run, the memory layout of images on it, and batches moved there."""

import gc
import os
import re
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch
from derain.errors import UsageError
from derain.models.shapes import image_batch

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


DEVICES = ("auto", "cpu", "cuda")

_OF_A_GPU = re.compile("CUDA|cuDNN|CUDNN|CUBLAS|cuBLAS|CUSOLVER|CUFFT|NCCL|HIP error")
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""What torch and the libraries say; a handle that is not initialised had no room for its own."""


def pick_device(train: TrainConfig) -> torch.device:
    """The device that the config names; never a different one in its place."""
    return device_named(train.device, "train.device", "--set train.device=cpu")


def device_named(
    name: str, option: str = "--device", alternative: str = "--device cpu"
) -> torch.device:
    """`auto` (CUDA if available), `cpu` or `cuda`; the message names `option` and `alternative`.

    This is the only place that chooses a device. A CUDA device has its number, that of the current
    one: Ray Train makes another one current in each worker of a node.

    Raises UsageError for another name, and for `cuda` without a CUDA device: work never moves to
    the CPU silently.
    """
    if name not in DEVICES:
        raise UsageError(f"{option}: expected {', '.join(DEVICES)}, found {name!r}.")
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
    """The batch on a run's device, NCHW, float32 in [0, 1].

    On CUDA it is copied on a stream of its own, while the step before it is still computed.
    """
    device, layout = pick_device(train), memory_format(train)
    rain, clean = (image_batch(it, layout) for it in _copied((batch.rain, batch.clean), device))
    return Batch(rain, clean, ids=batch.ids, share=batch.share, following=batch.following)


def _copied(images: tuple[np.ndarray, np.ndarray], device: torch.device) -> list[Tensor]:
    hosts = [torch.from_numpy(np.ascontiguousarray(it)) for it in images]
    if device.type != "cuda":
        return [host.to(device) for host in hosts]
    copying, computing = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):  # torch keeps pinned memory until a copy from it is done
        copies = [host.pin_memory().to(device, non_blocking=True) for host in hosts]
    computing.wait_stream(copying)
    for copy in copies:
        copy.record_stream(computing)  # its memory belongs to `copying`, which may reuse it
    return copies


@lru_cache(maxsize=8)
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def make_deterministic(device: torch.device, wanted: bool) -> None:
    """Choose between operations of equal bits and fast ones, for this process; CUDA only.

    Raises RuntimeError later, from an operation that has no deterministic form.
    """
    if device.type != "cuda":
        return
    if wanted:
        os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted


def limit_memory(share: float) -> None:
    """Let this process allocate at most this share of its GPU's memory; nothing on a CPU.

    Others that share the GPU then keep theirs, however much of it is free at the moment.
    """
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share, device_named("cuda"))


def free_cached_memory() -> None:
    """Give back the GPU memory that torch keeps for later, for other libraries and processes."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def breaks_process(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, comes from a GPU and leaves it unusable in this
    process. Running out of its memory does not."""
    while error is not None:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            accelerator = getattr(torch, "AcceleratorError", ())
            if isinstance(error, accelerator) or _OF_A_GPU.search(str(error)):
                return True
        error = error.__cause__ or error.__context__
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, or a library that it calls, could not allocate memory.

    cuBLAS and cuDNN allocate their own, past torch's allocator, when they are first used.
    """
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    )


def seed_all(device: torch.device, seed: int) -> None:
    """Seed the random generators of a run's device and of the CPU.

    Not with torch.manual_seed: for every kind of device that is absent it records the call stack,
    in case the device appears later, which takes 0.08 ms even in a shallow stack.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def memory_metrics(device: torch.device) -> dict[str, float]:
    """`gpu_memory_gib`: the most that torch has held on a GPU so far; nothing for a CPU."""
    if device.type != "cuda":
        return {}
    return {"gpu_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
