"""Connecting to Ray: an open connection is reused, an unreachable cluster is named at once."""

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


def test_more_workers_than_cores_or_gpus_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cores = cluster.cpus()
    assert cluster.can_start(cores, gpu=False)
    assert not cluster.can_start(cores + 1, gpu=False)
    assert not cluster.can_start(cluster.gpus() + 1, gpu=True)
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # a cluster may grow
    assert cluster.can_start(cores + 1, gpu=False)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "http://x", "nonsense://x"]
)
def test_an_unreachable_cluster_is_named_at_once(address: str) -> None:
    """Calls `_connect`, as `connected` would reuse the Ray that the tests have started."""
    with pytest.raises(DerainError, match=rf"RAY_ADDRESS is {address}.*HOST:PORT"):
        cluster._connect(address, {"ignore_reinit_error": False})
