"""Reaching Ray: a connected one is left as it is, and what can never fit is known."""

import pytest
import ray

from derain import cluster
from derain.errors import DerainError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_connected_ray_is_used_and_stays() -> None:
    before = ray.get_runtime_context().gcs_address
    with cluster.connected():
        assert ray.get_runtime_context().gcs_address == before
    assert ray.is_initialized()


def test_resources_are_those_of_the_cluster() -> None:
    assert cluster.cpus() == int(ray.cluster_resources()["CPU"])
    assert cluster.gpus() == int(ray.cluster_resources().get("GPU", 0))


def test_what_can_never_start_here_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cores = cluster.cpus()
    assert cluster.fits(cores, gpu=False)
    assert not cluster.fits(cores + 1, gpu=False)
    assert not cluster.fits(cluster.gpus() + 1, gpu=True)
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # a cluster may grow
    assert cluster.fits(cores + 1, gpu=False)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "http://x", "nonsense://x"]
)
def test_a_cluster_that_is_not_there_is_named_at_once(address: str) -> None:
    """Not with `connected`: the tests have a Ray already."""
    with pytest.raises(DerainError, match=rf"RAY_ADDRESS is {address}.*HOST:PORT"):
        cluster._connect(address, {"ignore_reinit_error": False})
