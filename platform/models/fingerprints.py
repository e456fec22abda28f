"""What tells two modules apart, to the bit."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> str:
    """The sha256 (hex) of the names, shapes, dtypes and bytes of a module's state dict.

    Device and memory format do not count; a difference of one bit does. What a module names in
    `computed` is left out: tensors that follow from the others, whose last bit depends on the CPU.
    """
    computed = {
        f"{place}.{name}".lstrip(".")
        for place, part in module.named_modules()
        for name in getattr(part, "computed", ())
    }
    state = module.state_dict()
    return digest({name: state[name] for name in state if name not in computed}).hex()


def digest(tensors: Mapping[str, Tensor]) -> bytes:
    """The sha256 of tensors, their names, shapes and dtypes."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        data: Any = flat.view(torch.uint8).numpy()
        found.update(data)
    return found.digest()
