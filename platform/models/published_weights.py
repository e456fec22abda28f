"""Weights published by the authors of a network, recognised by the SHA-256 of their tensors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from derain.models import build
from derain.models.weights import load_strictly, read_state_dict


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file published by its authors."""

    network: str
    """The name that `derain.models.build` takes, along with `options`."""
    trained_on: str
    """`DATASET/SPLIT:PAIRS`, the names of `derainctl datasets`."""
    source: str
    """Repository, and the path in it."""
    options: Mapping[str, object] = field(default_factory=dict)


_PRENET = "csdwren/PReNet, logs/"

PUBLISHED: dict[str, PublishedWeights] = {
    "9667d2f1e3aed949f3c813b07735e5a7f1bd3a455556b2820c2bba51b31747bb": PublishedWeights(
        "prenet", "rain100l/train:200", _PRENET + "Rain100L, PReNet"
    ),
    "df9a35c3e1c134a355d2143e7741c0b28bccfa13d33233c31019c32f86d4604b": PublishedWeights(
        "prenet", "rain100h/train:1254", _PRENET + "Rain100H, PReNet"
    ),
    "72c9b10cb70d59958de97fe6afd63710ac2fea3fe31d4caf8da715e1164b761d": PublishedWeights(
        "prenet", "rain100l/train:200", _PRENET + "Rain100L, PReNet_r", {"shared_blocks": True}
    ),
}
"""By `tensors_sha256`, which is the same for a .pth file and its conversion to .safetensors."""


def load_published(path: str | Path, key: str | None = None) -> tuple[nn.Module, PublishedWeights]:
    """Build the network of a published file (.safetensors, .pt or .pth) and load its weights.

    Returns the network and the entry of `PUBLISHED`. No code from the file is executed. For weights
    that are not in `PUBLISHED`, use `load_strictly(build(name, **options), read_state_dict(path),
    path)`.

    Raises FileNotFoundError if the file does not exist, ValueError if it is not a state dict or
    not one of the published files.
    """
    tensors = read_state_dict(path, key)
    digest = tensors_sha256(tensors)
    if digest not in PUBLISHED:
        known = "; ".join(f"{item.source} ({item.trained_on})" for item in PUBLISHED.values())
        raise ValueError(
            f"{path} has {_described(tensors)}, and these are not published weights that are known "
            f"here ({known}); the SHA-256 of the tensors is {digest}. Name the network that they "
            "belong to with --network, and its options, if they are not the published ones, with "
            "--set."
        )
    published = PUBLISHED[digest]
    network = build(published.network, **published.options)
    load_strictly(network, tensors, path)
    return network, published


def published_in(path: Path) -> PublishedWeights | None:
    """The entry of `PUBLISHED` whose weights the .safetensors file of a model folder has, or None.

    Raises FileNotFoundError if the file does not exist.
    """
    return PUBLISHED.get(tensors_sha256(load_file(path)))


def _described(tensors: Mapping[str, Tensor]) -> str:
    """What a file has, in a few words: `41 tensors with 168,963 values, such as conv0.0.weight`."""
    first = next(iter(tensors), "none")
    count = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors)} tensors with {count:,} values, such as {first}"


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of the names, shapes and float32 values of tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().float().contiguous().numpy()
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
