"""Prometheus finds the newest metrics of a run where Ray exports its own."""

import urllib.request

import pytest
import ray

from derain.config import Config
from derain.pipelines.watching.gauges import Gauges
from tests.processes import wait_for
from tests.tiny import TINY


def exported() -> str:
    """What Ray's agent on this node answers to Prometheus."""
    (node,) = (node for node in ray.nodes() if node["Alive"])
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read().decode()


def values(text: str, name: str) -> dict[str, float]:
    """By the name of the run."""
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return {line.split('run="')[1].split('"')[0]: float(line.split()[-1]) for line in lines}


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_ray_exports_the_newest_metrics_of_each_run() -> None:
    for name, loss in (("first", 0.5), ("second", 0.25)):
        gauges = Gauges(Config.model_validate({**TINY, "name": name}))
        gauges.show(10, {"loss": 1.0})
        gauges.show(20, {"loss": loss, "psnr_y": 30.0})
    wait_for(lambda: "ray_derain_psnr_y" in exported(), 60)
    text = exported()
    assert values(text, "ray_derain_step") == {"first": 20, "second": 20}
    assert values(text, "ray_derain_loss") == {"first": 0.5, "second": 0.25}
    assert values(text, "ray_derain_psnr_y") == {"first": 30, "second": 30}
