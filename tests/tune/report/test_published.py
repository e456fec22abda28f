"""When published values may be subtracted from: the same network, data and protocol."""

from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.data.prepared.index import INDEX, write_index
from derain.data.prepared.manifest import Manifest, write_manifest
from derain.tune.report.published import measured_on, why_incomparable

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
    folders = {}
    for split in ("train", "rain100h"):
        folder = tmp_path / split
        folder.mkdir()
        index = write_index(folder / INDEX, iter([]))
        write_manifest(folder, Manifest("rain13k", split, 0, 0, (), index, "", {}))
        folders[split] = str(folder)
    return Config.model_validate(
        {
            "name": "search",
            "profile": "paper",
            "model": {"name": "fclip_unet", "encoder_weights": "openai"},
            "data": {"train": folders["train"], "eval": folders["rain100h"]},
            "train": {"steps": 3},
            "sweep": {"space": {"train.lr": {"grid": [0.1, 0.2]}}, "reference": REFERENCE},
        }
    )


def test_the_published_setting_can_be_compared(published_setting: Config) -> None:
    assert why_incomparable(published_setting) is None
    assert [Path(folder).name for folder in measured_on(published_setting)] == ["rain100h"]


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
