"""What Ray's cluster launcher asks of a file, and what we ask of every cluster that it starts."""

from typing import Any

from ray.autoscaler._private.util import prepare_config, validate_config


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The config as `ray up` prepares it; raises for what its schema refuses."""
    filled = prepare_config(config)
    validate_config(filled)
    return filled


def check_starts(config: dict[str, Any]) -> None:
    """Ray asks for a token everywhere, its dashboard is not on the network, and it scales."""
    (head,) = (line for line in config["head_start_ray_commands"] if "ray start" in line)
    assert "--head " in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head  # without it, no workers
    (worker,) = (line for line in config["worker_start_ray_commands"] if "ray start" in line)
    assert "--address=$RAY_HEAD_IP:6379" in worker
    for line in (head, worker):
        variables = line.removeprefix("ulimit -n 65536; ").partition("~/derain/bin/ray start")[0]
        assert "RAY_AUTH_MODE=token" in variables.split()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def check_scales_from_zero(config: dict[str, Any], *, spot: set[str]) -> None:
    """No work, no machines but the head, which takes none; GPUs are spot machines."""
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    workers = {name: kind for name, kind in types.items() if kind is not head}
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in workers.values())
    assert all(kind["resources"]["CPU"] > 0 for kind in workers.values())
    assert {name for name, kind in workers.items() if kind["resources"].get("GPU")} == spot
    assert sum(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]
    assert config["idle_timeout_minutes"] > 0


def check_installs_the_wheel(config: dict[str, Any]) -> None:
    """With the versions that are tested, from files that `uv build` and git put there."""
    assert config["file_mounts"]["~/wheel"] == "dist"
    assert config["file_mounts"]["~/constraints.txt"] == "constraints.txt"
    (install,) = (line for line in config["setup_commands"] if "derain_platform-*.whl" in line)
    assert "--constraints ~/constraints.txt" in install
