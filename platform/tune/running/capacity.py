"""How many trials of a sweep run at once, and how many CPU threads each gets."""

from derain.config import Config
from derain.pipelines import nodes
from derain.pipelines.train.workers import needs


def trials_at_once(config: Config) -> int:
    """`sweep.concurrent`; default: as many trials as the cluster's machines have room for."""
    assert config.sweep is not None
    room = nodes.room(*needs(config))
    return config.sweep.concurrent or max(1, room // config.train.max_workers)


def with_cpu_threads(config: Config) -> Config:
    """The config with the threads per trial fixed for the whole sweep.

    As many as let all trials run at once, each on one machine: the cores of a machine without GPUs
    are of no use to a trial that needs one. Another number of threads adds floating-point numbers
    in another order.
    """
    threads = config.train.cpu_threads or _most_threads(config)
    return config.replaced({"train.cpu_threads": threads}, "sweep")


def _most_threads(config: Config) -> int:
    workers = trials_at_once(config) * config.train.max_workers
    _, gpus = needs(config)
    most = int(max((node.cpus for node in nodes.nodes()), default=1))
    return next((n for n in range(most, 1, -1) if nodes.room(n, gpus) >= workers), 1)
