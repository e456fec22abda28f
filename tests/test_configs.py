"""Every file in configs/ parses, in every profile, and its whole search space is valid."""

from pathlib import Path

import pytest
import yaml

from derain.config import load_config
from derain.tune.space import plan

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
CLUSTERS = sorted((Path(__file__).parents[1] / "clusters").glob("*.yaml"))


def profiles(path: Path) -> list[str]:
    return list(yaml.safe_load(path.read_text()).get("profiles", {}))


def test_there_are_configs() -> None:
    assert [path for path in CONFIGS if path.name == "ldfps.yaml"]
    assert CLUSTERS


@pytest.mark.parametrize(
    ("path", "profile"),
    [(path, profile) for path in CONFIGS for profile in profiles(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_config_is_valid(path: Path, profile: str) -> None:
    config = load_config(path, profile=profile)
    assert config.profile == profile
    if config.sweep is not None:
        trials = plan(config)
        reference = config.sweep.reference
        if reference is not None:
            assert {trial.point for trial in trials} == set(reference.psnr_y)


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_cluster_file_is_what_rays_launcher_takes(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load(path.read_text())))
