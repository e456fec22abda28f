"""Starting and reaching Ray."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from derain.errors import DerainError

log = logging.getLogger(__name__)

KNOCK_S = 10.0
_TALKATIVE = ("ray._private.authentication", "ray.data")
"""Loggers that warn at every start that token authentication is on and our settings apply."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Ray for the time of the block: the cluster of RAY_ADDRESS, else one of this process's own.

    A Ray that is connected already is used and left as it is. Raises DerainError where none
    answers at RAY_ADDRESS.
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
        _connect(address, options)
        _warn_of_temporary_copy()
    else:
        # "local": without it Ray joins whatever cluster was last started on this machine.
        ray.init(address="local", include_dashboard=False, **options)
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours say what matters


def _connect(address: str, options: Mapping[str, Any]) -> None:
    try:
        _knock(address)
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises five kinds, and for ray:// those of its client
        told = " ".join(str(error).split())
        raise DerainError(
            f"RAY_ADDRESS is {address}, and no Ray can be reached there ({told}). Expected "
            "HOST:PORT of a running cluster, ray://HOST:PORT, or auto; without the variable Ray "
            "starts on this machine."
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray would ask for minutes, and then end the process."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme in ("", "ray") and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


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
