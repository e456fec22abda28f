"""LPIPS equals its formula with torchvision's own AlexNet, and says which file is missing."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from derain.errors import DataError, UsageError
from derain.evaluation.lpips import LEAST_PX, Lpips

CHANNELS = (64, 192, 384, 256, 256)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Random weights, the backbone as .pth and the heads as .safetensors."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    features = torchvision.models.alexnet(weights=None).features
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save(state, folder / "alexnet.pth")
    heads = {f"lin{at}.model.1.weight": torch.rand(1, n, 1, 1) for at, n in enumerate(CHANNELS)}
    save_file(heads, folder / "heads.safetensors")
    return folder / "alexnet.pth", folder / "heads.safetensors"


def images(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    return first, second


def test_lpips_equals_the_formula(files: tuple[Path, Path]) -> None:
    network = torchvision.models.alexnet(weights=None)
    network.load_state_dict(torch.load(files[0], weights_only=True), strict=False)
    first, second = images(65, 90)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    maps = [
        (((torch.from_numpy(image) / 255 * 2 - 1) - shift) / scale).permute(2, 0, 1)[None]
        for image in (first, second)
    ]
    torch.manual_seed(0)
    torchvision.models.alexnet(weights=None)
    expected = 0.0
    heads = iter([torch.rand(1, count, 1, 1) for count in CHANNELS])
    for layer in list(network.features)[:12]:
        maps = [layer(each) for each in maps]
        if isinstance(layer, torch.nn.ReLU):
            one, other = (each / each.norm(dim=1, keepdim=True) for each in maps)
            expected += float(((one - other) ** 2 * next(heads)).sum(dim=1).mean())
    assert Lpips(*files)(first, second) == pytest.approx(expected, rel=1e-4)
    assert Lpips(*files)(first, first) == 0.0


def test_images_that_cannot_be_compared(files: tuple[Path, Path]) -> None:
    measure = Lpips(*files)
    first, second = images(LEAST_PX, LEAST_PX)
    assert measure(first, second) > 0
    for one, other in ((first[1:], second[1:]), (first, second[1:]), (first / 255.0, second)):
        with pytest.raises(DataError):
            measure(one, other)


def test_a_missing_or_other_file_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torchvision's AlexNet.*nothing\.pth"):
        Lpips(tmp_path / "nothing.pth", files[1])
    with pytest.raises(UsageError, match=r"the heads of lpips.* has no lin0"):
        Lpips(files[0], files[0])
