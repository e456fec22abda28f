"""The MLflow store: its address, and how to open it.

Every function in this folder takes the store's URI as `uri`; None means `tracking_uri()`. So a
worker process, whose working directory differs, can be given the driver's store. MLflow's global
state (active run, tracking URI) is neither set nor read.

MLflow takes three seconds to import; it is imported at first use, not with this module.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlparse

from derain.errors import StorageError, UsageError
from derain.storage.locks import locked
from derain.storage.output_paths import check_file, may_write
from derain.tracking.address import (
    ARTIFACTS_FOLDER,
    DATABASE_FILE,
    hidden,
    sqlite_file,
    tracking_uri,
    without_password,
)
from derain.tracking.moved import check_in_place

EXPERIMENT = "derain"
_SQLITE_HEADER = b"SQLite format 3\0"
REQUEST_ERRORS = frozenset(
    {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE"}
)
"""MLflow's error codes with which a working store rejects a request."""


def prepare_store(uri: str | None = None, experiment: str = EXPERIMENT) -> str:
    """Create the store's tables and the experiment if they are missing; return the URI.

    The driver calls this before it starts workers: a new sqlite file takes seconds to migrate.
    Processes that call it at the same time wait for each other.

    Raises StorageError or UsageError as `client_of` does.
    """
    uri = uri or tracking_uri()
    with storage_errors(uri):
        experiment_id_of(client_of(uri), uri, experiment)
    return uri


def check_store(uri: str | None = None) -> None:
    """Check that a store can be used, without writing to it; for before work begins.

    A sqlite store is not opened, nor another database, as that would create its tables; a server is
    asked a question. Raises UsageError if it cannot
    be written there, StorageError if it is something else or does not answer.
    """
    uri = uri or tracking_uri()
    database = sqlite_file(uri)
    if database is None:
        if urlparse(uri).scheme in ("http", "https"):
            with storage_errors(uri):
                client_of(uri).search_experiments(max_results=1)
        return
    try:
        check_file(database)
        _check_database(database)
    except OSError as error:
        raise StorageError(_unusable_message(uri, error)) from error


def schema_versions(uri: str) -> tuple[str | None, str] | None:
    """The version of a database's tables, and the one that this MLflow works with.

    None for a server, which looks after its own, and for a sqlite file that does not exist or is
    empty: its tables are made by the first run. Raises StorageError if it does not answer.
    """
    database = sqlite_file(uri)
    if urlparse(uri).scheme in ("http", "https"):
        return None
    if database is not None and not (database.is_file() and database.stat().st_size):
        return None
    mlflow()
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    try:
        engine = create_engine(uri)
        try:
            return utils._get_schema_version(engine), utils._get_latest_schema_revision()
        finally:
            engine.dispose()
    except Exception as error:  # database drivers raise types of their own
        raise StorageError(_unusable_message(uri, error)) from error


@functools.cache
def mlflow() -> Any:
    """Import MLflow without its telemetry, prints and progress bars: stdout is for our results."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # The outbox sends again by itself; MLflow's seven retries would block one call for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    import mlflow
    import mlflow.artifacts
    import mlflow.models
    import mlflow.pyfunc

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs the traceback of what it raises, which we explain.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


def client_of(uri: str) -> Any:
    """Open the store; the tables of a new sqlite store are created.

    MLflow 3.17 does that without a lock; two processes doing it at once both fail in a migration.

    Raises UsageError for an address that MLflow does not accept, StorageError if the store cannot
    be opened.
    """
    try:
        with write_lock(uri):
            _check_database(sqlite_file(uri))
            return mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)
    except Exception as error:  # database drivers raise types of their own
        invalid = getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"
        error_type = UsageError if invalid else StorageError
        raise error_type(_unusable_message(uri, error)) from error


def reader_of(uri: str) -> Any:
    """Open a store to read from it: `client_of`, which creates nothing.

    Raises UsageError if there is no such sqlite file.
    """
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        raise UsageError(no_store(uri))
    return client_of(uri)


def no_store(uri: str) -> str:
    """The message for a sqlite store that does not exist."""
    return (
        f"There is no MLflow store {without_password(uri)}. Call this in the folder of its "
        f"{DATABASE_FILE}, or set MLFLOW_TRACKING_URI to the store's address."
    )


def _check_database(database: Path | None) -> None:
    """Raise OSError for a sqlite file that cannot be used: MLflow would try for 100 seconds."""
    if database is None or not database.exists():
        return
    if not database.is_file() and not database.is_dir():
        raise OSError(f"{database} is not a file")  # to open a pipe may take forever
    with database.open("rb") as file:
        found = file.read(len(_SQLITE_HEADER))
    if found not in (b"", _SQLITE_HEADER):
        raise OSError(f"{database} is not a sqlite file")


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Raise StorageError if the store fails within the block.

    If a working store rejects the request (see `REQUEST_ERRORS`), MLflow's exception passes
    through for the caller to interpret.
    """
    try:
        yield
    except mlflow().exceptions.MlflowException as error:
        if error.error_code in REQUEST_ERRORS:
            raise
        raise StorageError(_unusable_message(uri, error)) from error


def _unusable_message(uri: str, error: Exception) -> str:
    reason = hidden(error, uri)
    # What follows is the statement and a link to SQLAlchemy's page about it.
    reason = reason.partition("\n[SQL: ")[0].partition("\n(Background on ")[0].strip()
    return (
        f"The MLflow store {without_password(uri)} cannot be used: {reason}. Set "
        "MLFLOW_TRACKING_URI to the store's address (default: mlflow.db in the working directory)."
    )


@contextlib.contextmanager
def write_lock(uri: str) -> Iterator[None]:
    """Keep our other processes from writing to a sqlite store; other stores need no lock.

    A store that one may only read needs none either.
    """
    database = sqlite_file(uri)
    if database is None or (database.exists() and not may_write(database.parent)):
        yield
        return
    with locked(database.with_name(f"{database.name}.lock")):
        yield


def experiment_id_of(client: Any, uri: str, name: str) -> str:
    """Find or create an experiment; next to a sqlite store it keeps its artifacts.

    MLflow's default would be ./mlruns of whichever process came first. A server decides for itself.
    Raises StorageError if the store was moved.
    """
    database = sqlite_file(uri)
    location = None
    if database is not None:
        location = f"{(database.parent / ARTIFACTS_FOLDER).as_uri()}/{quote(name, safe='')}"
    found = client.get_experiment_by_name(name)
    if found is None:
        ignore_existing(lambda: client.create_experiment(name, artifact_location=location))
        found = client.get_experiment_by_name(name)
    check_in_place(uri, found.artifact_location)
    return found.experiment_id


def find_run(client: Any, uri: str, run_id: str) -> Any:
    """MLflow's run of this id.

    Raises UsageError if it is not in the store, StorageError if the store does not answer.
    """
    try:
        with storage_errors(uri):
            return client.get_run(run_id)
    except mlflow().exceptions.MlflowException as error:
        raise UsageError(
            f"The MLflow run {run_id} is not in the store {without_password(uri)}: {error}. "
            "Point MLFLOW_TRACKING_URI at the store in which it was recorded."
        ) from error


def ignore_existing(create: Any) -> None:
    """Call `create` for something that another process may be creating at the same time."""
    try:
        create()
    except mlflow().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def pages(search: Any) -> Iterator[Any]:
    """All results of a paged MLflow search."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return
