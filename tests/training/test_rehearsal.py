"""A network that would fail in the first step, or when it is scored, is refused before that."""

import logging
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.errors import ConfigError, UsageError, WeightsError
from derain.training.rehearsal import odd_size, rehearse
from tests.tiny import TINY

MODULE = """
import torch
from torch import nn

class Plain(nn.Module):
    stride = 2
    def __init__(self, width: int = 4, act: str = "relu", residual=True):
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, padding=1)
        self.b = nn.Conv2d(width, 3, 3, padding=1)
    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))

class Listed(Plain):
    def forward(self, x):
        return [super().forward(x)]

class ListedInTraining(Plain):
    def forward(self, x):
        return [super().forward(x)] if self.training else super().forward(x)

class Smaller(Plain):
    def forward(self, x):
        return super().forward(x)[:, :, 1:]

class Integers(Plain):
    def forward(self, x):
        return super().forward(x).to(torch.uint8)

class NotANumber(Plain):
    def forward(self, x):
        return super().forward(x) * float("nan")

class HiddenStride(nn.Module):
    def __init__(self, stride=8):
        super().__init__()
        self.down = nn.Conv2d(3, 4, stride, stride=stride)
        self.up = nn.ConvTranspose2d(4, 3, stride, stride=stride)
    def forward(self, x):
        return x + self.up(self.down(x))

class DoubledStride(HiddenStride):
    stride = 4

class TextStride(Plain):
    stride = "8"

class Reflecting(Plain):
    def forward(self, x):
        padded = nn.functional.pad(super().forward(x), (14,) * 4, mode="reflect")
        return padded[:, :, 14:-14, 14:-14]

class Unused(Plain):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(4, 1, 1)

class Constant(nn.Module):
    def forward(self, x):
        return x

class Broken(Plain):
    def __init__(self):
        raise KeyError("no such table")
"""


@pytest.fixture(autouse=True)
def _networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rehearsed_nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def config(network: str, tmp_path: Path, **values: Any) -> Config:
    loss = {"perceptual": "none"}
    model = {"name": f"rehearsed_nets:{network}", **values.pop("model", {})}
    tree = {**TINY, "model": model, "loss": loss, "output_dir": str(tmp_path)}
    return Config.model_validate(tree).replaced(values, "test")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("Listed", "returned a list.*expected one tensor"),
        ("ListedInTraining", "returned a list.*expected one tensor"),
        ("Smaller", r"shape \(1, 3, 33, 38\).*shape \(1, 3, 34, 38\)"),
        ("Integers", "returned torch.uint8"),
        ("NotANumber", "returned NaN"),
        ("HiddenStride", "35x33 px.*its `stride`, 1"),
        ("DoubledStride", "its `stride`, 4"),
        ("TextStride", "the stride '8'; expected a whole number"),
        ("Constant", "optimizer got an empty parameter list"),
        ("Broken", "cannot be built.*KeyError: 'no such table'"),
        ("Missing", "no attribute 'Missing'"),
    ],
)
def test_a_network_that_cannot_be_trained_and_scored_is_refused(
    network: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"(?s)rehearsed_nets:{network}.*{message}"):
        rehearse(config(network, tmp_path))


@pytest.mark.parametrize(
    ("network", "model", "message"),
    [
        ("Plain", {"widht": 8}, "`model.widht`: .* no such option. The nearest is `width`"),
        ("Plain", {"width": "8"}, "`model.width`: expected a valid integer, found '8'"),
        ("Plain", {"width": [8]}, r"`model.width`: expected a valid integer, found \[8\]"),
        ("Plain", {"act": 3}, "`model.act`: expected a valid string, found 3"),
        ("Plain", {"residual": "no"}, "`model.residual`: expected a valid boolean, found 'no'"),
        ("Constant", {"width": 8}, "Its options: none"),
    ],
)
def test_the_options_of_a_user_defined_class_are_checked_like_keys(
    network: str, model: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        rehearse(config(network, tmp_path, model=model))


def test_crops_must_be_multiples_of_the_stride(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`train.crop_px`: .*of 2.*found 33.* 32 and 34"):
        rehearse(config("Plain", tmp_path, **{"train.crop_px": 33}))
    stages = [{"from_step": 5, "crop_px": 35, "batch_size": 2}]
    with pytest.raises(ConfigError, match=r"`train.progressive.0.crop_px`.*found 35"):
        rehearse(config("Plain", tmp_path, **{"train.progressive": stages}))


def test_the_smallest_held_out_image_must_be_large_enough_for_the_network(tmp_path: Path) -> None:
    reflecting = config("Reflecting", tmp_path)
    rehearse(reflecting)
    with pytest.raises(UsageError, match="fails on an image of 40x12 px"):
        rehearse(reflecting, (12, 40))


def test_weights_that_are_missing_or_do_not_fit_are_found(tmp_path: Path) -> None:
    for values in (
        {"train.start_from": str(tmp_path / "gone")},
        {"loss.perceptual": "vgg16", "loss.perceptual_weights": str(tmp_path / "gone.pth")},
        {"loss.contrastive": "vgg16", "loss.perceptual_weights": str(tmp_path / "gone.pth")},
    ):
        with pytest.raises(WeightsError, match="gone"):
            rehearse(config("Plain", tmp_path, **values))
    own = Config.model_validate({**TINY, "output_dir": str(tmp_path)})
    rehearse(own)
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        rehearse(own.replaced({"model.encoder_weights": str(tmp_path / "gone.safetensors")}, "t"))


def test_parameters_without_a_gradient_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="derain")
    rehearse(config("Plain", tmp_path))
    assert not caplog.records
    rehearse(config("Unused", tmp_path))
    assert "2 of the 6 parameters" in caplog.text
    assert "head.weight, head.bias" in caplog.text


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8, 12, 16, 32, 64])
def test_the_size_of_the_pass_finds_a_larger_stride(stride: int) -> None:
    size = odd_size(stride)
    assert all(side % 2 for side in size)
    padded = [side + -side % stride for side in size]
    assert all(side % stride == 0 for side in padded)
    for factor in (2, 3, 5, 7):
        assert any(side % (factor * stride) for side in padded)
