"""Full float32 on GPUs that would round it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_CUDNN: Any = torch.backends.cudnn
"""`conv` is not among its declared names."""


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Run convolutions and matrix products in full float32, whatever the process allows.

    On CUDA torch rounds 23 bits to 10 in convolutions by default, in matrix products where the
    process has asked for it: on an H100 that moved the levels of an image by up to 0.19 of 255.
    """
    operations: tuple[Any, ...] = _CUDNN.conv, torch.backends.cuda.matmul
    before = [each.fp32_precision for each in operations]
    for each in operations:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        for each, precision in zip(operations, before, strict=True):
            each.fp32_precision = precision
