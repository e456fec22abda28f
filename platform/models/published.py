"""Published weights, recognised by what is in the file, and the network that they belong to."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from derain.models import build
from derain.models.weights import load_strictly, read_state_dict


@dataclass(frozen=True)
class Published:
    """A file of weights that its authors published."""

    network: str
    """What `derain.models.build` takes, with `options`."""
    trained_on: str
    source: str
    """Repository, and where in it."""
    options: Mapping[str, object] = field(default_factory=dict)


_PRENET = "csdwren/PReNet, logs/"

PUBLISHED: dict[str, Published] = {
    "9667d2f1e3aed949f3c813b07735e5a7f1bd3a455556b2820c2bba51b31747bb": Published(
        "prenet", "RainTrainL (200 pairs)", _PRENET + "Rain100L, PReNet"
    ),
    "df9a35c3e1c134a355d2143e7741c0b28bccfa13d33233c31019c32f86d4604b": Published(
        "prenet", "RainTrainH (1,254 pairs)", _PRENET + "Rain100H, PReNet"
    ),
    "72c9b10cb70d59958de97fe6afd63710ac2fea3fe31d4caf8da715e1164b761d": Published(
        "prenet", "RainTrainL (200 pairs)", _PRENET + "Rain100L, PReNet_r", {"shared_blocks": True}
    ),
}
"""By `tensors_sha256`: the same for a .safetensors file and for the .pth file that it came from."""


def load_published(path: str | Path) -> tuple[nn.Module, Published]:
    """The network of a published file (.safetensors, .pt or .pth) with its weights, and what it is.

    Nothing in the file is executed. For weights that are not in `PUBLISHED`, name network and
    options: `load_strictly(build(name, **options), read_state_dict(path), path)`.

    Raises FileNotFoundError where there is no such file, ValueError where it is something else or
    is not one of the published ones.
    """
    tensors = read_state_dict(path)
    digest = tensors_sha256(tensors)
    if digest not in PUBLISHED:
        known = "; ".join(f"{item.source} ({item.trained_on})" for item in PUBLISHED.values())
        raise ValueError(
            f"{path} holds none of the published weights that are known here ({known}): its "
            f"tensors have the sha256 {digest}. Load other weights with derain.models.build and "
            "derain.models.weights.load_strictly."
        )
    published = PUBLISHED[digest]
    network = build(published.network, **published.options)
    load_strictly(network, tensors, path)
    return network, published


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 (hex) of names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().float().contiguous().numpy()
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
