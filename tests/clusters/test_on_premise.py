"""clusters/on_premise: a file for Ray's cluster launcher."""

import pytest
from jsonschema import ValidationError

from tests.clusters.checks import load, with_misspelt
from tests.clusters.launcher import check_starts, prepared

FILE = "on_premise/cluster.yaml"


def test_rays_launcher_accepts_the_file() -> None:
    config = prepared(load(FILE))
    check_starts(config)
    assert config["provider"]["type"] == "local"


@pytest.mark.parametrize(
    "path", [("setup_commands",), ("auth", "ssh_user"), ("head_start_ray_commands",)]
)
def test_a_misspelt_key_is_refused(path: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        prepared(with_misspelt(load(FILE), path))
