"""LPIPS 0.1 on AlexNet, from two weight files that the user has; lower is better.

Zhang, Isola, Efros, Shechtman and Wang 2018, The unreasonable effectiveness of deep features as a
perceptual metric. Neither file comes with this package.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from derain.errors import DataError, UsageError
from derain.models.weights import read_state_dict

CONVOLUTIONS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))
"""Number in torchvision's AlexNet, stride and padding."""
POOLED = (3, 6)
"""The convolutions that follow a max-pool of 3 px and stride 2."""
LEAST_PX = 31

SHIFT = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
"""Of inputs in [-1, 1]."""

NAME = "lpips_alex"
Features = Float[Tensor, "1 channels height width"]


@dataclass(frozen=True)
class LpipsFiles:
    """The two weight files of `Lpips`."""

    backbone: str
    heads: str

    def identity(self) -> dict[str, str]:
        """The digest of each file. Raises UsageError for a file that cannot be read."""
        try:
            return {
                "backbone_sha256": hashlib.sha256(Path(self.backbone).read_bytes()).hexdigest(),
                "heads_sha256": hashlib.sha256(Path(self.heads).read_bytes()).hexdigest(),
            }
        except OSError as error:
            raise UsageError(f"LPIPS needs its two weight files: {error}") from error


class Lpips:
    """Compares a derained image with the clean one.

    `backbone` is a state dict of torchvision's AlexNet (ImageNet), `heads` the file
    `weights/v0.1/alex.pth` of the package lpips; .pth or .safetensors, read without running code.
    Raises UsageError, which says what is missing, for a file that is not there or does not fit.
    """

    identity = f"{NAME} v1 (LPIPS 0.1)"

    def __init__(self, backbone: str | Path, heads: str | Path, device: str = "cpu") -> None:
        self._device = torch.device(device)
        names = [f"features.{number}.{kind}" for number, _, _ in CONVOLUTIONS for kind in _KINDS]
        self._backbone = self._read(backbone, names, "torchvision's AlexNet")
        names = [f"lin{number}.model.1.weight" for number in range(len(CONVOLUTIONS))]
        self._heads = list(self._read(heads, names, "the heads of lpips 0.1 on AlexNet").values())

    @torch.inference_mode()
    def __call__(self, derained: np.ndarray, clean: np.ndarray) -> float:
        """LPIPS of two uint8 HWC RGB images of equal size, at least 31 px on each side.

        Raises DataError for other images.
        """
        for image in (derained, clean):
            if image.dtype != np.uint8 or image.shape != clean.shape or image.shape[2:] != (3,):
                raise DataError(
                    f"LPIPS expects two uint8 RGB images of one size, found {derained.shape} "
                    f"{derained.dtype} and {clean.shape} {clean.dtype}."
                )
        if min(clean.shape[:2]) < LEAST_PX:
            raise DataError(
                f"The image is {clean.shape[1]}x{clean.shape[0]} px; LPIPS needs at least "
                f"{LEAST_PX} px on each side."
            )
        layers = zip(self._features(derained), self._features(clean), self._heads, strict=True)
        return sum(
            float(conv2d((_unit(one) - _unit(other)) ** 2, head).mean())
            for one, other, head in layers
        )

    def _features(self, image: np.ndarray) -> list[Features]:
        """AlexNet's five maps after each ReLU."""
        values = torch.tensor(image).permute(2, 0, 1).float() / 127.5 - 1
        maps, found = ((values - SHIFT) / SCALE)[None].to(self._device), []
        for number, stride, padding in CONVOLUTIONS:
            if number in POOLED:
                maps = max_pool2d(maps, 3, 2)
            weight, bias = (self._backbone[f"features.{number}.{kind}"] for kind in _KINDS)
            maps = relu(conv2d(maps, weight, bias, stride, padding))
            found.append(maps)
        return found

    def _read(self, path: str | Path, names: list[str], what: str) -> dict[str, Tensor]:
        try:
            tensors = read_state_dict(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"LPIPS needs {what}: {error}") from error
        if missing := [name for name in names if name not in tensors]:
            raise UsageError(f"LPIPS needs {what}; {path} has no {missing[0]}.")
        return {name: tensors[name].to(self._device) for name in names}


_KINDS = ("weight", "bias")


def _unit(maps: Features) -> Features:
    return maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
