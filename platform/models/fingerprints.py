"""Fingerprints of modules: equal if and only if their state dicts are bit-identical."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> str:
    """SHA-256 (hex) of the names, shapes, dtypes and bytes of a module's state dict.

    It depends on every bit, but not on device and memory format. The names in a sub-module's
    attribute `computed` are left out: tensors that are computed from the others and whose last bit
    depends on the type of CPU.
    """
    computed = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, submodule in module.named_modules()
        for name in getattr(submodule, "computed", ())
    }
    state = module.state_dict()
    return digest({name: state[name] for name in state if name not in computed}).hex()


def digest(tensors: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of tensors, with their names, shapes and dtypes."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        data: Any = flat.view(torch.uint8).numpy()
        sha256.update(data)
    return sha256.digest()
