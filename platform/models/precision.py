"""Full float32 on GPUs that would round it."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Run cuDNN's convolutions in full float32; by default it rounds 23 bits to 10 on CUDA.

    Matrix products are not rounded unless the process enables it.
    """
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
