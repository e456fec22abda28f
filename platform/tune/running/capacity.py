"""How many trials of a sweep run at once, and how many CPU threads each gets."""

from derain import cluster
from derain.config import Config
from derain.pipelines.train.workers import uses_gpu


def trials_at_once(config: Config) -> int:
    """`sweep.concurrent`; default: as many trials as the cluster has room for."""
    assert config.sweep is not None
    return config.sweep.concurrent or max(1, _worker_slots(config) // config.train.max_workers)


def with_cpu_threads(config: Config) -> Config:
    """The config with the threads per trial fixed for the whole sweep.

    Another number of threads adds floating-point numbers in another order.
    """
    threads = config.train.cpu_threads or max(
        1, cluster.cpus() // (trials_at_once(config) * config.train.max_workers)
    )
    return config.replaced({"train.cpu_threads": threads}, "sweep")


def _worker_slots(config: Config) -> int:
    """How many training workers the cluster has room for."""
    assert config.sweep is not None
    if uses_gpu(config):
        return cluster.gpus() * int(1 / config.sweep.gpu_fraction)
    return cluster.cpus() // (config.train.cpu_threads or 1)
