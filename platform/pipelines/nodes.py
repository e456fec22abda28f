"""What the machines of the connected cluster have room for, and waiting for what they have not.

Ray places a process on one machine: cores of one and a GPU of another serve nobody. So everything
is planned for each machine, never from the sums of the cluster.
"""

import contextlib
import functools
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.experimental.internal_kv import _internal_kv_get
from ray.util import placement_group_table

from derain import cluster

log = logging.getLogger(__name__)

ASK_S = 30.0
"""How long the autoscaler may take to say that it starts a machine."""
WAIT_POLL_S = 5.0
WAIT_LINE_EVERY_S = 60.0
_NODE_GROUP = "ray.io/node-group"
_AUTOSCALER_STATUS = "__autoscaling_status"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, with all that it has, whether or not it is in use."""

    address: str
    cpus: float
    gpus: float

    def room(self, cpus: float, gpus: float) -> int:
        """How many processes with these needs it has room for; each needs some of either.

        A share of a GPU is one of a single GPU, of which it has a whole number.
        """
        by_cpus = int(self.cpus // cpus) if cpus else sys.maxsize
        per_gpu = int(1 / gpus + 1e-9) if 0 < gpus <= 1 else 0
        by_gpus = int(self.gpus) * per_gpu if per_gpu else sys.maxsize
        return min(by_cpus, by_gpus)

    def __str__(self) -> str:
        return f"{self.address} has {self.cpus:g} CPU cores and {self.gpus:g} GPUs"


def nodes() -> list[Node]:
    """The machines of the connected cluster that are alive."""
    return [
        Node(
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def listed() -> str:
    """What each machine has, for a message."""
    return "; ".join(map(str, nodes())) or "there is no machine"


def room(cpus: float, gpus: float) -> int:
    """How many processes with these needs the cluster has room for, each on one machine."""
    return sum(node.room(cpus, gpus) for node in nodes())


def may_grow() -> bool:
    """Whether an autoscaler has started some of the machines, so that it may start others.

    `ray up` and KubeRay give their nodes this label.
    """
    return any(node.get("Labels", {}).get(_NODE_GROUP) for node in ray.nodes())


def can_start(workers: int, *, cpus: float, gpus: float) -> bool:
    """Whether Ray can start these workers, now or later.

    At RAY_ADDRESS other machines may join; but a worker that fits on no machine is only waited for
    if there is an autoscaler.
    """
    found = room(cpus, gpus)
    return found >= workers or (bool(os.environ.get("RAY_ADDRESS")) and (found > 0 or may_grow()))


def has_gpus() -> bool:
    """Whether the cluster has GPUs, or its autoscaler starts one when it is asked.

    It is asked once for each connection, and half a minute is given to it: a cluster that is scaled
    to zero has no GPU until somebody needs one.
    """
    return cluster.gpus() > 0 or (
        may_grow() and _ask_for_gpu(ray.get_runtime_context().get_job_id())
    )


@functools.cache
def _ask_for_gpu(job: str, patience_s: float = ASK_S) -> bool:  # noqa: ARG001, the cache's key
    log.info("ray: no machine has a GPU; asking the autoscaler for one")
    request_resources(bundles=[{"GPU": 1}])
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if cluster.gpus() or _is_machine_coming():
            return True
        time.sleep(1.0)
    request_resources(bundles=[])
    log.warning(
        "ray: the autoscaler started no machine with a GPU within %.0f s, so train.device=auto "
        "means the CPU. Give --set train.device=cuda to wait for one.", patience_s,
    )  # fmt: skip
    return False


def _is_machine_coming() -> bool:
    """Whether the autoscaler reports machines that it is starting."""
    status = json.loads(_internal_kv_get(_AUTOSCALER_STATUS) or b"{}")
    report = status.get("autoscaler_report") or {}
    return bool(report.get("pending_nodes") or report.get("pending_launches"))


@contextlib.contextmanager
def logging_waits() -> Iterator[None]:
    """While the block runs, say every minute what is waited for if nothing can be placed."""
    done = threading.Event()
    thread = threading.Thread(target=_log_waits, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _log_waits(done: threading.Event) -> None:
    since = logged = time.monotonic()
    while not done.wait(WAIT_POLL_S):
        needed, now = waited_for(), time.monotonic()
        if not needed:
            since = logged = now
        elif now - logged >= WAIT_LINE_EVERY_S:
            logged = now
            log.warning(
                "ray: waiting for %s, for %.0f s by now. The cluster: %s. In use "
                "by others, or not up yet? `ray status` shows it.",
                needed, now - since, listed(),
            )  # fmt: skip


def waited_for() -> str:
    """What this job's first placement group needs, if none of them could be placed; else ""."""
    job = ray.get_runtime_context().get_job_id()
    with contextlib.suppress(Exception):  # Ray may be shutting down; a line less does no harm
        groups = [
            group
            for name, group in placement_group_table().items()
            if name.endswith(job) and any("CPU" in b or "GPU" in b for b in _bundles(group))
        ]
        waiting = [group for group in groups if group["state"] == "PENDING"]
        if waiting and not any(group["state"] == "CREATED" for group in groups):
            bundles = [bundle for bundle in _bundles(waiting[0]) if bundle]
            needs = " and ".join(f"{amount:g} {name}" for name, amount in bundles[0].items())
            workers = f"{len(bundles)} workers, each" if len(bundles) > 1 else "a worker"
            return f"{workers} with {needs}"
    return ""


def _bundles(group: Mapping[str, Any]) -> list[Mapping[str, float]]:
    return list(group["bundles"].values())
