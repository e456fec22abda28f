"""The estimate: measured steps and images times their number in a sweep."""

from typing import Any

import pytest

from derain.config import Config
from derain.tune import estimate
from derain.tune.estimate import Pace, measure, total_steps
from tests.tune.simulated import LR, config


def test_steps_and_images_add_up() -> None:
    pace = Pace(seconds_per_step=2.0, seconds_per_image=3.0)
    assert pace.seconds(steps=10, images=5) == 35.0


@pytest.mark.parametrize(("search", "steps"), [("random", 16 * 64), ("asha", 16 * 4 + 4 * 12 + 48)])
def test_asha_trains_only_its_share_of_each_rung(search: str, steps: int) -> None:
    planned = config(LR, search, samples=16, asha={"first_steps": 4, "keep_one_in": 4})
    assert total_steps(planned, 16) == steps


def test_a_larger_network_takes_longer(tiny: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(estimate, "TIMING_S", 0.5)
    monkeypatch.setattr(estimate, "IMAGE_SIZE_PX", (64, 96))
    config = Config.model_validate(tiny)
    values = {"train.crop_px": 64, "train.batch_size": 16, "model.decoder_widths": [32] * 5}
    small, large = measure(config), measure(config.replaced(values, "test"))
    assert 0 < small.seconds_per_step < large.seconds_per_step
    assert small.seconds_per_image > 0


def test_pretrained_weights_are_not_needed(tiny: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(estimate, "TIMING_S", 0.001)
    monkeypatch.setattr(estimate, "IMAGE_SIZE_PX", (32, 32))
    values = {"loss.perceptual": "vgg16", "loss.perceptual_weights": "/nowhere/vgg.pth"}
    config = Config.model_validate(tiny).replaced(values, "test")
    assert measure(config).seconds_per_step > 0


@pytest.mark.parametrize("shares", [True, False])
def test_what_a_cohort_would_compute_once_is_measured(
    tiny: dict[str, Any], monkeypatch: Any, shares: bool
) -> None:
    monkeypatch.setattr(estimate, "TIMING_S", 0.001)
    monkeypatch.setattr(estimate, "IMAGE_SIZE_PX", (32, 32))
    mode = "frozen" if shares else "clip_denoising"
    values = {"model.encoder_bn_mode": mode, "model.encoder_width": 32, "train.crop_px": 64}
    found = measure(Config.model_validate(tiny).replaced(values, "test")).shared
    assert 0.05 < found < 0.95 if shares else found == 0
