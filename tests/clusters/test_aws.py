"""clusters/aws: Ray's schema, EC2's own description of an instance, and what must not be open."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from jsonschema import ValidationError

from tests.clusters.checks import CLUSTERS, load, with_misspelt
from tests.clusters.launcher import (
    check_installs_the_wheel,
    check_scales_from_zero,
    check_starts,
    prepared,
)

FILE = "aws/cluster.yaml"
NODE = ("available_node_types", "gpu_spot", "node_config")
EC2 = Session().get_service_model("ec2")


def instances(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def problems(node: dict[str, Any]) -> list[str]:
    """What EC2 would refuse of the request with which Ray starts a node."""
    shape = EC2.operation_model("RunInstances").input_shape
    request = {**node, "MinCount": 1, "MaxCount": 1}
    report = ParamValidator().validate(request, shape)
    return [report.generate_report()] if report.has_errors() else [*unknown_values(request, shape)]


def unknown_values(value: Any, shape: Any) -> Iterator[str]:
    """Values that are not in EC2's lists, which botocore does not compare."""
    if shape.type_name == "structure":
        for key, part in value.items():
            yield from unknown_values(part, shape.members[key])
    elif shape.type_name == "list":
        for part in value:
            yield from unknown_values(part, shape.member)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{shape.name} has no {value}"


def test_rays_launcher_accepts_the_file() -> None:
    config = prepared(load(FILE))
    check_starts(config)
    check_scales_from_zero(config, spot={"gpu_spot"})
    check_installs_the_wheel(config)


def test_ec2_accepts_every_node() -> None:
    nodes = instances(load(FILE))
    assert set(nodes) == {"head", "cpu", "gpu_spot"}
    assert not [problem for node in nodes.values() for problem in problems(node)]


def test_nothing_is_open_that_ray_would_open() -> None:
    """Ray makes a group with SSH for all, and a head that may do anything, where none is given."""
    config = load(FILE)
    for name, node in instances(config).items():
        assert node["SecurityGroupIds"]
        role = "derain-head" if name == "head" else "derain-node"
        assert node["IamInstanceProfile"] == {"Name": role}
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])
    assert "security_group" not in config["provider"]
    assert instances(config)["gpu_spot"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_policies_name_actions_that_exist() -> None:
    head = json.loads((CLUSTERS / "aws/head-policy.json").read_text())
    node = json.loads((CLUSTERS / "aws/node-policy.json").read_text())
    actions = [action for part in head["Statement"] for action in part["Action"]]
    of_ec2 = {action.removeprefix("ec2:") for action in actions if action.startswith("ec2:")}
    assert of_ec2 <= set(EC2.operation_names)
    assert {"RunInstances", "CreateTags", "TerminateInstances", "DescribeInstances"} <= of_ec2
    assert set(actions) - {f"ec2:{name}" for name in of_ec2} == {"iam:PassRole"}
    allowed = [action for part in node["Statement"] for action in part["Action"]]
    assert all(action.startswith("s3:") and "*" not in action for action in allowed)


@pytest.mark.parametrize(
    "path", [("idle_timeout_minutes",), ("available_node_types", "cpu", "min_workers")]
)
def test_a_misspelt_key_of_ray_is_refused(path: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        prepared(with_misspelt(load(FILE), path))


@pytest.mark.parametrize(
    "path", [(*NODE, "InstanceType"), (*NODE, "InstanceMarketOptions", "MarketType")]
)
def test_a_misspelt_key_of_ec2_is_refused(path: tuple[str, ...]) -> None:
    assert problems(instances(with_misspelt(load(FILE), path))["gpu_spot"])


def test_a_machine_that_does_not_exist_is_refused() -> None:
    node = instances(load(FILE))["gpu_spot"]
    assert problems({**node, "InstanceType": "g6.3xlarge"})
