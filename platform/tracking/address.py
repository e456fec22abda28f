"""The address of the MLflow store: a server, a database, or a sqlite file at any path."""

import os
from pathlib import Path
from urllib.parse import quote, urlparse

from derain.errors import UsageError

DATABASE_FILE = "mlflow.db"
ARTIFACTS_FOLDER = "mlruns"
SQLITE_PREFIX = "sqlite:///"
QUOTED_PREFIX = "sqlite+pysqlite:///"
"""For paths that must be quoted: MLflow 3.17 takes what follows the other prefix for a path, and
would make a folder of the quoted name."""


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI if set, else ./mlflow.db; a sqlite path is made absolute.

    Raises UsageError if it is no address.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return sqlite_uri(Path(DATABASE_FILE).absolute())
    try:
        urlparse(uri)
    except ValueError as error:  # it may have a password, so it is not shown
        raise UsageError(
            f"MLFLOW_TRACKING_URI is not an address ({error}). Expected, for example, "
            "http://HOST:5000 or sqlite:////PATH/mlflow.db."
        ) from None
    database = sqlite_file(uri)
    if database is None and uri.lower().startswith("sqlite:"):
        raise UsageError(
            f"MLFLOW_TRACKING_URI is {uri}: expected sqlite:/// and the path of a file, such as "
            "sqlite:////PATH/mlflow.db. A store in memory would end with the command."
        )
    if database is None:
        return uri
    _, mark, query = uri.partition("?")
    return f"{sqlite_uri(database)}{mark}{query}"


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of a sqlite store's file; None for other stores."""
    if not uri.startswith((SQLITE_PREFIX, QUOTED_PREFIX)):
        return None
    from sqlalchemy.engine import make_url  # takes half a second

    name = make_url(uri).database
    return None if name in (None, "", ":memory:") else Path(name).absolute()


def sqlite_uri(database: Path) -> str:
    """The URI of a sqlite file, quoted only where SQLAlchemy would read another name from it."""
    from sqlalchemy.engine import make_url

    plain = f"{SQLITE_PREFIX}{database}"
    if make_url(plain).database == str(database):
        return plain
    return QUOTED_PREFIX + quote(str(database))


def without_password(uri: str) -> str:
    """The URI as it may be shown in messages."""
    return hidden(uri, uri)


def hidden(text: object, uri: str) -> str:
    """A text without the password of the store's address, which MLflow and requests quote in full
    when a server does not answer."""
    password = urlparse(uri).password
    return str(text) if password is None else str(text).replace(f":{password}@", ":***@")
