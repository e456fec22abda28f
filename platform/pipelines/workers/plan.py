"""How many workers a verb has on a cluster, and what each reserves."""

import resource
import sys
from dataclasses import dataclass, replace

import ray

from derain.errors import UsageError
from derain.pipelines import nodes

MEMORY_MARGIN = 1.25
"""A worker reserves this many times the memory that the process of the command has taken."""


@dataclass(frozen=True)
class Workers:
    """How many processes work, and what each reserves."""

    count: int
    cpus: float
    gpus: float
    memory_bytes: int | None = None

    @property
    def threads(self) -> int:
        """Threads beside the network in each; of a worker with a GPU one core runs the network."""
        return max(1, int(self.cpus) - 1)

    def still_with_room(self) -> "Workers":
        """As many of them as the cluster has room for now, after a machine may have gone."""
        return replace(self, count=max(1, min(self.count, nodes.room(self.cpus, self.gpus))))


def plan_workers(asked: int | None, device: str, memory_bytes: int | None) -> Workers:
    """Workers on the connected cluster: as many as asked for, or as fit.

    With GPUs one for each of them, which gets its share of the machine's cores for what goes on
    beside the network; otherwise one for each core, or as many as have `memory_bytes` each. Raises
    UsageError if more are asked for than the cluster has room for.
    """
    on_gpu = device == "cuda" or (device == "auto" and nodes.has_gpus())
    cpus = _cores_per_gpu() if on_gpu else 1.0
    gpus = 1.0 if on_gpu else 0.0
    room = nodes.room(cpus, gpus)
    needs = int(memory_bytes * MEMORY_MARGIN) if memory_bytes and not asked and not on_gpu else None
    if needs:
        room = min(room, max(1, int(ray.cluster_resources().get("memory", 0) // needs)))
        needs = min(needs, int(ray.cluster_resources().get("memory", 0)) // room)
    if asked and not nodes.can_start(asked, cpus=cpus, gpus=gpus):
        raise UsageError(
            f"--workers {asked}: the cluster has room for {room} workers with {cpus:g} CPU cores "
            f"and {gpus:g} GPUs each: {nodes.listed()}. Give fewer, or --workers auto."
        )
    return Workers(asked or max(1, room), cpus, gpus, needs)


def _cores_per_gpu() -> float:
    """Of the machine with the fewest cores for each of its GPUs."""
    shares = [node.cpus // node.gpus for node in nodes.nodes() if node.gpus]
    return max(1.0, min(shares, default=1.0))


def peak_bytes() -> int:
    """The most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
