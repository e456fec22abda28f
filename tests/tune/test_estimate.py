"""The estimate: timed steps and images, times what a trial has of each."""

from typing import Any

from derain.config import Config
from derain.tune import estimate
from derain.tune.estimate import Pace, measure


def test_a_trial_takes_its_steps_and_its_images(tiny: dict[str, Any]) -> None:
    config = Config.model_validate(tiny)
    pace = Pace(seconds_a_step=2.0, seconds_per_image=3.0)
    longer = config.replaced({"train.steps": config.train.steps + 10}, "test")
    assert pace.trial_seconds(longer, 5) - pace.trial_seconds(config, 5) == 20.0
    assert pace.trial_seconds(config, 7) - pace.trial_seconds(config, 5) == 6.0


def test_a_larger_network_takes_longer(tiny: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(estimate, "ENOUGH_S", 0.5)
    monkeypatch.setattr(estimate, "IMAGE_SIZE_PX", (64, 96))
    config = Config.model_validate(tiny)
    values = {"train.crop_px": 64, "train.batch_size": 16, "model.decoder_widths": [32] * 5}
    small, large = measure(config), measure(config.replaced(values, "test"))
    assert 0 < small.seconds_a_step < large.seconds_a_step
    assert small.seconds_per_image > 0


def test_pretrained_weights_are_not_needed(tiny: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(estimate, "ENOUGH_S", 0.001)
    monkeypatch.setattr(estimate, "IMAGE_SIZE_PX", (32, 32))
    values = {"loss.perceptual": "vgg16", "loss.perceptual_weights": "/nowhere/vgg.pth"}
    config = Config.model_validate(tiny).replaced(values, "test")
    assert measure(config).seconds_a_step > 0
