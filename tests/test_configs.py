"""Every file in configs/ is valid in all profiles, and all trials of its sweep can be built."""

from collections.abc import Hashable
from pathlib import Path

import pytest

from derain.config import Config, load_config
from derain.config.source import read
from derain.training.factory import build_network, loss_of, without_pretrained
from derain.tune.space import plan

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
STRIDES: dict[Hashable, int] = {}
"""Strides of the networks built so far, by the options of network and loss."""


def profiles(path: Path) -> list[str]:
    """The profiles of the file and of those that it extends."""
    return list(read(path).tree["profiles"])


def stride(config: Config) -> int:
    """The stride of the network; each one is built once, with its loss and random weights."""
    loss, without = config.loss, without_pretrained(config)
    perceptual = loss.lambda_p and loss.perceptual
    contrastive = loss.lambda_c and (loss.contrastive, loss.contrastive_weights)
    key = (without.model, perceptual, contrastive)
    if key not in STRIDES:
        network = build_network(without)
        loss_of(without, network)
        STRIDES[key] = network.stride
    return STRIDES[key]


def test_there_are_configs() -> None:
    assert [path for path in CONFIGS if path.name == "ldfps.yaml"]


@pytest.mark.parametrize(
    ("path", "profile"),
    [(path, profile) for path in CONFIGS for profile in profiles(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_config_is_valid(path: Path, profile: str) -> None:
    config = load_config(path, profile=profile)
    assert config.profile == profile
    trials = plan(config) if config.sweep is not None else []
    for made in [trial.config for trial in trials] or [config]:
        sides = {stage.crop_px for stage in made.train.stages}
        assert not [side for side in sides if side % stride(made)]
    if config.sweep is not None and config.sweep.reference is not None:
        assert {trial.point for trial in trials} == set(config.sweep.reference.psnr_y)
