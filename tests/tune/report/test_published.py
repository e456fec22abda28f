"""When published values may be subtracted from: the same network, data and protocol."""

from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.tune.report.published import why_incomparable
from tests.folders import write_prepared

REFERENCE = {
    "source": "a table",
    "psnr_y": {"a": 30.0},
    "ssim_y": {},
    "trained_on": "rain13k/train",
    "measured_on": "rain13k/rain100h",
    "protocol": "rain13k",
}


@pytest.fixture
def published_setting(tmp_path: Path) -> Config:
    """The profile `paper` on prepared datasets with the names of the published ones."""
    names = ("train", "rain100h")
    train, rain100h = (write_prepared(tmp_path / name, "rain13k", name) for name in names)
    return Config.model_validate(
        {
            "name": "search",
            "profile": "paper",
            "model": {"name": "fclip_unet", "encoder_weights": "openai"},
            "data": {"train": train, "validation": rain100h},
            "train": {"steps": 3},
            "sweep": {"space": {"train.lr": {"grid": [0.1, 0.2]}}, "reference": REFERENCE},
        }
    )


def test_the_published_setting_can_be_compared(published_setting: Config) -> None:
    assert why_incomparable(published_setting) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"profile": "demo"}, "profile demo uses a network of another size"),
        ({"model.encoder_weights": "random"}, "the encoder has random weights"),
        ({"eval.protocol": "five_set"}, "by the protocol rain13k, these by five_set"),
        (
            {"sweep.reference.trained_on": "rain200h/train"},
            "trained on rain200h/train, these on rain13k/train",
        ),
        (
            {"sweep.reference.measured_on": "rain100h/test"},
            "measured on rain100h/test, these on rain13k/rain100h",
        ),
        ({"sweep.reference.measured_on": None}, "does not say on which dataset"),
        ({"sweep.reference.protocol": None}, "does not say by which protocol"),
    ],
)
def test_any_difference_is_the_reason(
    changed: dict[str, Any], reason: str, published_setting: Config
) -> None:
    found = why_incomparable(published_setting.replaced(changed, "test"))
    assert found is not None
    assert reason in found


def test_without_a_reference_there_is_nothing_to_compare(published_setting: Config) -> None:
    alone = published_setting.replaced({"sweep.reference": None, "profile": "demo"}, "test")
    assert why_incomparable(alone) is None
