"""Networks that kill their process at one image of the tests' dataset, or take their time."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from derain.inference.predictor import save_model_folder
from tests.folders import noise_image

KILLING = "004"


class Deadly(nn.Module):
    """Kills its process at the image `KILLING`: the first time, or always if `marker` is a folder.

    `marker` is written at that time.
    """

    stride = 1

    def __init__(self, *, marker: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self._marker = Path(marker)
        first = noise_image(int(KILLING), True, width=41, height=33).getpixel((0, 0))
        self._first = tuple(first[:2])

    def forward(self, x: Tensor) -> Tensor:
        """Rainy -> the same, if the process lives."""
        found = tuple((x[0, :2, 0, 0] * 255).round().int().tolist())
        if found == self._first and not self._marker.is_file():
            if not self._marker.is_dir():
                self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x * self.scale


def deadly(folder: Path, *, always: bool) -> str:
    """A model folder of a network that kills its process at the image `KILLING`."""
    marker = folder / "marker"
    if always:
        marker.mkdir()
    options = {"marker": str(marker)}
    name = f"{Deadly.__module__}:{Deadly.__name__}"
    return str(save_model_folder(Deadly(**options), folder / "deadly", name, options))


class Slow(nn.Module):
    """Takes half a second for each image."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.9))

    def forward(self, x: Tensor) -> Tensor:
        """Rainy -> a little darker."""
        time.sleep(0.5)
        return x * self.scale
