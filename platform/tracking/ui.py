"""MLflow's web page for a store on this machine, and the address of a run in it."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import urlparse

from derain.errors import DerainError, UsageError
from derain.tracking.address import tracking_uri, without_password
from derain.tracking.store import EXPERIMENT, client_of, find_run, reader_of, storage_errors

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PORT = 5000
ENDS_WITHIN_S = 5.0


def serve_ui(port: int = PORT, uri: str | None = None) -> None:
    """Serve MLflow's web page for a store that is a database, until interrupted.

    MLflow's own processes end with this one. Its job workers, six processes for its GenAI features,
    are not started.

    Raises:
        UsageError: the store is a server, which has its own page, or does not exist.
        DerainError: the port is in use, or MLflow's server ended with an error.
    """
    uri = uri or tracking_uri()
    if _is_server(uri):
        raise UsageError(f"The store is a server with its own page: {without_password(uri)}")
    client = reader_of(uri)
    _check_free(port)
    with storage_errors(uri):
        experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        log.info("ui: the runs are at %s", _page(port, f"{experiment.experiment_id}/runs"))
    with _mlflow(port, uri) as server:
        code = server.wait()
    if code:
        raise DerainError(f"`mlflow ui` ended with exit code {code}; its messages are above.")


def page_of(run_id: str, uri: str | None = None) -> str | None:
    """The address of a run's page: of the store if it is a server, else of `serve_ui`, which is
    named, as nobody answers there before it runs.

    None if the store does not answer.
    """
    uri = uri or tracking_uri()
    with contextlib.suppress(DerainError):
        run = find_run(client_of(uri), uri, run_id)
        place = f"{run.info.experiment_id}/runs/{run_id}"
        if _is_server(uri):
            return f"{_without_account(uri).rstrip('/')}/#/experiments/{place}"
        return f"{_page(PORT, place)} (`derainctl ui` serves it)"
    return None


def _without_account(uri: str) -> str:
    parts = urlparse(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_server(uri: str) -> bool:
    return urlparse(uri).scheme in ("http", "https")


def _page(port: int, place: str) -> str:
    return f"http://{HOST}:{port}/#/experiments/{place}"


def _check_free(port: int) -> None:
    """Raise DerainError, which names the next free port, if this one is in use."""
    if _is_free(port):
        return
    free = next((at for at in range(port + 1, 65536) if _is_free(at)), None)
    advice = f" Port {free} is free: --port {free}." if free else ""
    raise DerainError(f"Port {port} is in use, perhaps by another `derainctl ui`.{advice}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as MLflow's server does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _mlflow(port: int, uri: str) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server in a process group of its own, which ends with the block."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    # In the environment, because it may have a password and everybody can list command lines.
    own = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        # Both streams go to stderr: MLflow prints progress there, not results.
        server = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=sys.stderr, start_new_session=True
        )
        try:
            yield server
        finally:
            _end(server)
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: object) -> NoReturn:  # noqa: ARG001, a signal handler
    raise SystemExit(128 + number)


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(ENDS_WITHIN_S)
