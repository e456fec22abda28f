"""Starting and reaching Ray."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import ray

log = logging.getLogger(__name__)

_TALKATIVE = ("ray._private.authentication", "ray.data")
"""Loggers that warn at every start that token authentication is on and our settings apply."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Ray for the time of the block: the cluster of RAY_ADDRESS, else one of this process's own.

    A Ray that is connected already is used and left as it is.
    """
    if ray.is_initialized():
        yield
        return
    _start()
    try:
        yield
    finally:
        ray.shutdown()


def _start() -> None:
    address = os.environ.get("RAY_ADDRESS")
    log.info("ray: %s", f"connecting to {address}" if address else "starting on this machine")
    for talkative in _TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.ERROR)
    options = {"log_to_driver": False, "configure_logging": False}
    if address:
        ray.init(address=address, **options)
        _warn_of_temporary_copy()
    else:
        # "local": without it Ray joins whatever cluster was last started on this machine.
        ray.init(address="local", include_dashboard=False, **options)
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours say what matters


def fits(workers: int, *, gpu: bool) -> bool:
    """False when Ray on this machine can never start so many workers; a cluster may yet grow."""
    return bool(os.environ.get("RAY_ADDRESS")) or workers <= (gpus() if gpu else cpus())


def _warn_of_temporary_copy() -> None:
    if "working_dir_files" in Path.cwd().parts:
        log.warning(
            "This is a Ray job in a temporary copy of its folder. To keep the results, give "
            "--set output_dir=... and MLFLOW_TRACKING_URI on storage that stays."
        )


def cpus() -> int:
    """CPU cores of the connected cluster."""
    return int(ray.cluster_resources().get("CPU", 1))


def gpus() -> int:
    """GPUs of the connected cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
