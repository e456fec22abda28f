"""clusters/gcp: Ray's schema, Compute Engine's own of an instance, and what must not be open."""

from typing import Any

import pytest
from jsonschema import ValidationError

from tests.clusters.checks import load, problems, schema, with_misspelt
from tests.clusters.launcher import (
    check_installs_the_wheel,
    check_scales_from_zero,
    check_starts,
    prepared,
)

FILE = "gcp/cluster.yaml"
NODE = ("available_node_types", "gpu_spot", "node_config")


def instances(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def test_rays_launcher_accepts_the_file() -> None:
    config = prepared(load(FILE))
    check_starts(config)
    check_scales_from_zero(config, spot={"gpu_spot"})
    check_installs_the_wheel(config)


def test_compute_engine_accepts_every_node() -> None:
    nodes = instances(load(FILE))
    assert set(nodes) == {"head", "cpu", "gpu_spot"}
    assert not [found for node in nodes.values() for found in problems(node, schema("gce"))]
    assert nodes["gpu_spot"]["scheduling"]["provisioningModel"] == "SPOT"
    # Compute Engine does not move machines with a GPU: it refuses them without this.
    assert nodes["gpu_spot"]["scheduling"]["onHostMaintenance"] == "TERMINATE"


def test_machines_are_in_a_network_of_their_own() -> None:
    """The default one has a rule that lets everybody try SSH."""
    config = load(FILE)
    region = f"projects/{config['provider']['project_id']}/regions/{config['provider']['region']}"
    for node in instances(config).values():
        (network,) = node["networkInterfaces"]
        assert network["subnetwork"] == f"{region}/subnetworks/derain"
    workers = [node for name, node in instances(config).items() if name != "head"]
    assert all(node["serviceAccounts"] for node in workers)  # without one, no gs://


@pytest.mark.parametrize(
    "path", [("idle_timeout_minutes",), ("available_node_types", "cpu", "min_workers")]
)
def test_a_misspelt_key_of_ray_is_refused(path: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        prepared(with_misspelt(load(FILE), path))


@pytest.mark.parametrize(
    "path",
    [
        (*NODE, "machineType"),
        (*NODE, "scheduling", "provisioningModel"),
        (*NODE, "disks", 0, "initializeParams", "diskSizeGb"),
    ],
)
def test_a_misspelt_key_of_compute_engine_is_refused(path: tuple[str | int, ...]) -> None:
    assert problems(instances(with_misspelt(load(FILE), path))["gpu_spot"], schema("gce"))
