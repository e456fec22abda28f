"""The MLflow store: where it is, how it is opened, its own page.

Every function here and in the modules beside this one takes the store's URI as `uri`, and None
means `tracking_uri()`, so that a worker process with another working directory can be handed the
driver's store. MLflow's own global state (active run, tracking URI) is neither set nor read.

MLflow takes three seconds to import and is imported at its first use, not with this module.
"""

import contextlib
import functools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlparse

from derain.errors import DerainError, StorageError, UsageError
from derain.storage.locks import locked

EXPERIMENT = "derain"
DATABASE_FILE = "mlflow.db"
ARTIFACTS_FOLDER = "mlruns"
SQLITE_PREFIX = "sqlite:///"
ANSWERS = frozenset(
    {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE"}
)
"""MLflow's error codes that come from a store that works."""


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI if set, else ./mlflow.db; a sqlite path is made absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or SQLITE_PREFIX + DATABASE_FILE
    database = sqlite_file(uri)
    return uri if database is None else f"{SQLITE_PREFIX}{database}"


def prepare_store(uri: str | None = None, experiment: str = EXPERIMENT) -> str:
    """Create the store's tables and the experiment where they are missing; return the URI.

    The driver calls this before it starts workers: a new sqlite file takes seconds to migrate.
    Processes that call it at once wait for each other.

    Raises StorageError or UsageError as `client_of` does.
    """
    uri = uri or tracking_uri()
    with answering(uri):
        experiment_id_of(client_of(uri), uri, experiment)
    return uri


def serve_ui(port: int, uri: str | None = None) -> None:
    """Run MLflow's own web page on a store that is a database, until it is interrupted.

    Raises:
        UsageError: the store is a server, which has its page already.
        DerainError: MLflow's server ended with an error.
    """
    uri = uri or tracking_uri()
    if urlparse(uri).scheme in ("http", "https"):
        raise UsageError(f"The store is a server that has its own page: {without_password(uri)}")
    prepare_store(uri)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    # stderr for both streams: what MLflow says there is progress, not a result.
    ended = subprocess.run([*command, "--port", str(port)], stdout=sys.stderr, check=False)
    if ended.returncode != 0:
        raise DerainError(
            f"`mlflow ui` ended with {ended.returncode}; is port {port} taken? Try --port."
        )


@functools.cache
def mlflow() -> Any:
    """Import MLflow with its chatter and its telemetry off; stdout belongs to our results."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # The spool sends again by itself; MLflow's seven tries would hold one call for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    import mlflow
    import mlflow.artifacts
    import mlflow.models
    import mlflow.pyfunc

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return mlflow


def client_of(uri: str) -> Any:
    """Open the store, which creates a sqlite store's tables if there are none.

    MLflow 3.17 does that without a lock; two processes that meet there both fail in a migration.

    Raises UsageError for an address that MLflow does not take, StorageError where nothing opens.
    """
    try:
        with alone(uri):
            return mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)
    except Exception as error:  # a database's driver raises kinds of its own
        wrong = getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"
        raise (UsageError if wrong else StorageError)(_cannot_be_used(uri, error)) from error


@contextlib.contextmanager
def answering(uri: str) -> Iterator[None]:
    """Raise StorageError where a store does not do what the block asks of it.

    Where it answers that what was asked for is not there, MLflow's exception passes: what that
    means, the caller knows.
    """
    try:
        yield
    except mlflow().exceptions.MlflowException as error:
        if error.error_code in ANSWERS:
            raise
        raise StorageError(_cannot_be_used(uri, error)) from error


def _cannot_be_used(uri: str, error: Exception) -> str:
    told = str(error).strip().replace(uri, without_password(uri))
    return (
        f"The MLflow store {without_password(uri)} cannot be used: {told}. "
        "MLFLOW_TRACKING_URI names the store; without it, mlflow.db in the working directory."
    )


def alone(uri: str) -> contextlib.AbstractContextManager[None]:
    """For the time of the block no other process writes a sqlite store; others need no lock."""
    database = sqlite_file(uri)
    if database is None:
        return contextlib.nullcontext()
    return locked(database.with_name(f"{database.name}.lock"))


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of a sqlite store's file; None for any other store."""
    if not uri.startswith(SQLITE_PREFIX) or uri == SQLITE_PREFIX:
        return None
    return Path(uri.removeprefix(SQLITE_PREFIX)).absolute()


def without_password(uri: str) -> str:
    """The URI as messages may show it."""
    parts = urlparse(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@")


def experiment_id_of(client: Any, uri: str, name: str) -> str:
    """Find or create an experiment whose artifacts lie beside a sqlite store, wherever we run.

    MLflow's own default is ./mlruns of whichever process came first. A store that is a server
    decides by itself.
    """
    database = sqlite_file(uri)
    location = None
    if database is not None:
        location = f"{(database.parent / ARTIFACTS_FOLDER).as_uri()}/{quote(name, safe='')}"
    found = client.get_experiment_by_name(name)
    if found is None:
        ignore_existing(lambda: client.create_experiment(name, artifact_location=location))
        found = client.get_experiment_by_name(name)
    return found.experiment_id


def ignore_existing(create: Any) -> None:
    """Create something that another process may have created in the same moment."""
    try:
        create()
    except mlflow().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def pages(search: Any) -> Iterator[Any]:
    """Everything that a search of MLflow's finds, page by page."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return
