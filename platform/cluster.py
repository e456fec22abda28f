"""Starting Ray on this machine, or connecting to a running cluster."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from derain.errors import DerainError
from derain.storage.cores import available_cores

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
_NOISY_LOGGERS = ("ray._private.authentication", "ray.data")
"""They warn at every start that token authentication is on and that our settings apply."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray for the duration of the block: to RAY_ADDRESS, default: a new local Ray.

    If this process is already connected, that connection is used and left open. Raises DerainError
    if no Ray answers at RAY_ADDRESS.
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
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    options = {"log_to_driver": False, "configure_logging": False}
    if address:
        _connect(address, options)
        _warn_of_temporary_copy()
    else:
        # Without "local" Ray joins whatever cluster was last started on this machine.
        ray.init(address="local", include_dashboard=False, num_cpus=available_cores(), **options)
    ray.data.DataContext.get_current().enable_progress_bars = False  # we print our own


def _connect(address: str, options: Mapping[str, Any]) -> None:
    try:
        _check_reachable(address)
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises five types of its own, for ray:// those of its client
        reason = " ".join(str(error).split())
        raise DerainError(
            f"RAY_ADDRESS is {address}, but no Ray cluster can be reached there ({reason}). "
            "Expected HOST:PORT of a running cluster, ray://HOST:PORT, or auto. If the variable is "
            "not set, Ray starts on this machine."
        ) from error


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens there: Ray would retry for minutes and then exit."""
    scheme, _, host_port = address.rpartition("://")
    host, _, port = host_port.rpartition(":")
    if scheme in ("", "ray") and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _warn_of_temporary_copy() -> None:
    if "working_dir_files" in Path.cwd().parts:
        log.warning(
            "This Ray job runs in a temporary copy of its folder. To keep the results, point "
            "--set output_dir=... and MLFLOW_TRACKING_URI at permanent storage."
        )


def cpus() -> int:
    """Number of CPU cores in the connected cluster."""
    return int(ray.cluster_resources().get("CPU", 1))


def gpus() -> int:
    """Number of GPUs in the connected cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
