"""Reaching the job server of a Ray cluster, with every failure as one message."""

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from derain.errors import DerainError, UsageError

CONNECT_TIMEOUT_S = 10.0
DEFAULT_PORTS = {"http": 80, "https": 443}
_NOISY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""They report each file that is sent, and each connection that ends."""
_WRONG_TOKEN = (
    "it refuses this token. Copy ~/.ray/auth_token of the cluster's head to this machine, and set "
    "RAY_AUTH_MODE=token"
)


@contextlib.contextmanager
def job_server(address: str | None) -> Iterator[Any]:
    """Ray's client of the job server, for the duration of the block.

    `address` is http://HOST:8265, HOST:PORT of the cluster or auto; default: RAY_ADDRESS, else a
    Ray that runs on this machine. Raises DerainError if no server answers there or it refuses.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    with _environment(address):
        from ray.exceptions import AuthenticationError  # Ray reads the variables when imported

        try:
            yield _connect(address)
        except AuthenticationError as error:
            raise DerainError(f"{address or 'Ray on this machine'}: {_WRONG_TOKEN}.") from error


@contextlib.contextmanager
def _environment(address: str | None) -> Iterator[None]:
    """For Ray's client: the address, which it looks for there first, and the use of the token,
    which Ray's other clients decide by themselves."""
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    if (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _connect(address: str | None) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        _check_reachable(address)
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise
    except Exception as error:  # of Ray, requests, the system, without a common type
        reason = " ".join(str(error).split())
        where = f"no job server of Ray can be reached at {address}" if address else (
            "no Ray cluster runs on this machine"
        )  # fmt: skip
        raise DerainError(
            f"{where} ({reason}). Expected --address or RAY_ADDRESS with http://HOST:8265 (`ssh -L "
            "8265:localhost:8265 HEAD` brings it here), HOST:PORT of a running cluster, or auto."
        ) from error


def _check_reachable(address: str | None) -> None:
    """Raise OSError if nothing listens there: Ray would try for minutes."""
    parts = urlsplit(address if address and "://" in address else f"//{address or ''}")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if parts.hostname and port and parts.scheme in ("", "ray", *DEFAULT_PORTS):
        socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S).close()


@contextlib.contextmanager
def about(job: str) -> Iterator[None]:
    """Requests about one job. Raises UsageError if the cluster has none of that name, DerainError
    for anything else that the server refuses."""
    try:
        yield
    except RuntimeError as error:
        if re.search(r"status code 404|does not exist", str(error)):
            raise UsageError(
                f"{job}: this cluster has no such job. `derainctl status` lists its jobs."
            ) from None
        reason = " ".join(str(error).split())[:500]
        raise DerainError(
            f"{job}: the job server refuses: {reason} A cluster that has just started may need a "
            "minute; then run the same command again."
        ) from error
