"""What a run's machine does meanwhile, as MLflow's system metrics: its UI has a tab for them.

MLflow's own variables switch it on, MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING, and set the seconds
between two samples, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL. Its own thread would write to the
store itself, and wait for one that is away; these records take the way of all others.
"""

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping

import psutil
import torch

from derain.errors import UsageError

SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
DEFAULT_S = 10.0
_MEGABYTE = 1e6

Record = Callable[[Mapping[str, float]], None]


@contextlib.contextmanager
def system_metrics(record: Record) -> Iterator[None]:
    """Record samples of this machine during a block, in a thread, if they are switched on.

    Raises UsageError for an interval that is not a number of seconds above 0.
    """
    if os.environ.get(SWITCH, "").lower() not in ("true", "1"):
        yield
        return
    interval_s, over = _interval_s(), threading.Event()

    def run() -> None:
        sample()  # loads are counted from the sample before
        while not over.wait(interval_s):
            record(sample())

    thread = threading.Thread(target=run, daemon=True, name="system metrics")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sample() -> dict[str, float]:
    """The use of this machine, by MLflow's names; shares in percent, network since the start."""
    memory, disk, network = (
        psutil.virtual_memory(),
        psutil.disk_usage("/"),
        psutil.net_io_counters(),
    )
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / _MEGABYTE,
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_megabytes": disk.used / _MEGABYTE,
        "disk_available_megabytes": disk.free / _MEGABYTE,
        "disk_usage_percentage": disk.percent,
    }
    if network is not None:
        found["network_receive_megabytes"] = network.bytes_recv / _MEGABYTE
        found["network_transmit_megabytes"] = network.bytes_sent / _MEGABYTE
    for number in range(torch.cuda.device_count()):
        found |= {f"gpu_{number}_{name}": value for name, value in _gpu(number).items()}
    return {f"system/{name}": value for name, value in found.items()}


def _gpu(number: int) -> dict[str, float]:
    """All that runs on a GPU that this process sees; without what its driver does not say."""
    free, total = torch.cuda.mem_get_info(number)
    found = {
        "memory_usage_megabytes": (total - free) / _MEGABYTE,
        "memory_usage_percentage": 100 * (1 - free / total),
    }
    with contextlib.suppress(RuntimeError, ModuleNotFoundError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["utilization_percentage"] = float(torch.cuda.utilization(number))
        found["power_usage_watts"] = torch.cuda.power_draw(number) / 1000
    return found


def _interval_s() -> float:
    text = os.environ.get(INTERVAL, "") or str(DEFAULT_S)
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) > 0:
            return seconds
    raise UsageError(f"{INTERVAL} must be a number of seconds above 0, found {text!r}.")
