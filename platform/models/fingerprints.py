"""What tells two modules apart, to the bit."""

import hashlib

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """The sha256 (hex) of the names, shapes, dtypes and bytes of a module's state dict.

    Device and memory format do not count; a difference of one bit does.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()
