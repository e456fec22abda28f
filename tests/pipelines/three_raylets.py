"""A cluster of three raylets of unequal size, one of which joins when it is asked for."""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group

from derain.pipelines import nodes


def check(cluster: Cluster) -> None:
    assert sorted(node.cpus for node in nodes.nodes()) == [1, 4]
    assert not nodes.may_grow()
    assert not nodes.has_gpus()  # no autoscaler, so none is asked

    os.environ["RAY_NODE_TYPE_NAME"] = "cores"  # as an autoscaler starts a machine
    machine = cluster.add_node(num_cpus=1)
    assert nodes.may_grow()
    assert not nodes._ask_for_gpu("once", patience_s=1.5)
    with ThreadPoolExecutor() as threads:
        found = threads.submit(nodes.has_gpus)
        cluster.add_node(num_cpus=2, num_gpus=1)
        assert found.result()
    cluster.remove_node(machine)
    assert (nodes.room(2, 1), nodes.room(3, 1), nodes.room(1, 0)) == (1, 0, 7)
    assert nodes.room(1, 0.5) == 2


def wait_in_vain() -> None:
    nodes.WAIT_POLL_S, nodes.WAIT_LINE_EVERY_S = 0.2, 0.4
    with nodes.logging_waits():
        group = placement_group([{"CPU": 3, "GPU": 1}])  # no machine has both
        time.sleep(1.5)
        remove_placement_group(group)
        placed = placement_group([{"CPU": 1}])
        ray.get(placed.ready())
        assert nodes.waited_for() == ""


if __name__ == "__main__":
    logging.basicConfig()
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=4)
        cluster.add_node(num_cpus=1)
        ray.init(cluster.address, configure_logging=False, log_to_driver=False)
        check(cluster)
        wait_in_vain()
    finally:
        ray.shutdown()
        cluster.shutdown()
