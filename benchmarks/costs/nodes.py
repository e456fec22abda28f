"""So many raylets on this machine, each with 8 GPUs that only Ray believes in."""

import os
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group

from benchmarks.costs.line import Values
from derain import cluster
from derain.cluster import PATIENCE
from derain.pipelines import nodes

GPUS = 8
STORE_BYTES = 80 * 2**20
"""Of each raylet's object store: the least that Ray accepts is 75 MiB."""


def measure(count: int, folder: Path) -> Values:
    """Costs of Ray and of what our commands ask every node."""
    os.environ.update({**PATIENCE, "RAY_TMPDIR": str(folder)})
    began = time.perf_counter()
    head = {"num_cpus": GPUS, "num_gpus": GPUS, "object_store_memory": STORE_BYTES}
    raylets = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            raylets.add_node(**head)
        seconds = time.perf_counter() - began
        ray.init(raylets.address, configure_logging=False, log_to_driver=False)
        return {"starting them one by one, s": seconds, **_memory(), **_asking(count)}
    finally:
        ray.shutdown()
        raylets.shutdown()


def _process() -> int:
    return os.getpid()


def _memory() -> dict[str, float]:
    """Of Ray's own processes, before there is a worker; shared pages count once."""
    sizes = {pid: _mb(pid) for pid in _descendants(os.getpid())}
    gcs = sum(size for pid, size in sizes.items() if "gcs_server" in _command(pid))
    return {
        "GCS, MB of memory": gcs,
        "raylets and their agents, MB of memory": sum(sizes.values()) - gcs,
    }


def _descendants(pid: int) -> list[int]:
    own = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for file in own for child in file.read_text().split()]
    return [*children, *(each for child in children for each in _descendants(child))]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


def _mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("Pss:")[1].split()[0]) * 1024 / 1e6


def _asking(count: int) -> dict[str, float]:
    values: dict[str, float] = {}
    began = time.perf_counter()
    assert nodes.room(1, 1) == count * GPUS
    values["room for trials (`nodes.room`), s"] = time.perf_counter() - began
    began = time.perf_counter()
    group = placement_group([{"CPU": 1, "GPU": 1}] * (count * GPUS))
    ray.get(group.ready(), timeout=300)
    values["reserving every GPU, s"] = time.perf_counter() - began
    ray.util.remove_placement_group(group)
    began = time.perf_counter()
    assert len(cluster.on_every_node(_process)) == count
    values["a call on every node (`doctor`), new processes, s"] = time.perf_counter() - began
    began = time.perf_counter()
    cluster.on_every_node(_process)
    values["the same again, s"] = time.perf_counter() - began
    return values
