"""Connecting to Ray: an open connection is reused, an unreachable cluster is named at once."""

import subprocess
import sys

import pytest
import ray

from derain import cluster
from derain.errors import DerainError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_an_open_connection_is_reused_and_left_open() -> None:
    before = ray.get_runtime_context().gcs_address
    with cluster.connected():
        assert ray.get_runtime_context().gcs_address == before
    assert ray.is_initialized()


def test_resources_are_those_that_ray_reports() -> None:
    assert cluster.cpus() == int(ray.cluster_resources()["CPU"])
    assert cluster.gpus() == int(ray.cluster_resources().get("GPU", 0))


def test_a_new_ray_has_the_cores_that_this_process_may_use() -> None:
    """In a process of its own, which may use one of the machine's cores."""
    script = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from derain import cluster\n"
        "with cluster.connected(): print('cores', cluster.cpus())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "cores 1\n" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "http://x", "nonsense://x"]
)
def test_an_unreachable_cluster_is_named_at_once(address: str) -> None:
    """Calls `_connect`, as `connected` would reuse the Ray that the tests have started."""
    with pytest.raises(DerainError, match=rf"RAY_ADDRESS is {address}.*HOST:PORT"):
        cluster._connect(address, {"ignore_reinit_error": False})
