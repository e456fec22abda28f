"""A sqlite store that was moved or copied: its rows name the folder in which it was made.

`python -c "from derain.tracking.moved import relocate; relocate('mlflow.db')"` gives them the
present one. No run may be writing to the store meanwhile.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from derain.errors import StorageError
from derain.tracking.address import ARTIFACTS_FOLDER, sqlite_file, without_password

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables of MLflow and their columns with the URI of a folder of artifacts."""


def check_in_place(uri: str, location: str) -> None:
    """Raise StorageError if the artifacts at `location` belong beside a sqlite store elsewhere.

    So a run in a store that was moved writes nothing into the folder in which it was before.
    """
    database = sqlite_file(uri)
    before = _folder_of(location)
    if database is None or before is None or before.resolve() == database.parent.resolve():
        return
    raise StorageError(
        f"The MLflow store {without_password(uri)} was moved or copied: its artifacts belong into "
        f"{before / ARTIFACTS_FOLDER}, expected {database.parent / ARTIFACTS_FOLDER}. Move it "
        'back, or give it its new place: python -c "from derain.tracking.moved import relocate; '
        f"relocate('{database.name}')\", called in its folder."
    )


def relocate(database: str | Path) -> int:
    """Have the rows of a sqlite store name `mlruns` beside it; returns how many were changed.

    Only artifacts that were beside the store are meant, such as not those in s3://.
    """
    folder = Path(database).absolute().parent
    if not Path(database).is_file():
        raise StorageError(f"{database}: no such file. Give the sqlite file of the store.")
    changed = 0
    with contextlib.closing(sqlite3.connect(database)) as store, store:
        for table, column, row, location in list(_rows(store)):
            before = _folder_of(location)
            if before is not None and before != folder:
                moved = location.replace(before.as_uri(), folder.as_uri(), 1)
                store.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (moved, row))
                changed += 1
    return changed


def _rows(store: sqlite3.Connection) -> Iterator[tuple[str, str, int, str]]:
    """Table, column, number of the row and its URI, for every place that is not empty."""
    for table, column in _PLACES:
        with contextlib.suppress(sqlite3.OperationalError):  # an older MLflow has no such table
            found = store.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} != ''")
            yield from ((table, column, *row) for row in found)


def _folder_of(location: str) -> Path | None:
    """The folder of the store whose artifacts are at a file:// URI; None for any other place."""
    if urlparse(location).scheme != "file":
        return None
    parts = Path(url2pathname(urlparse(location).path)).parts
    if ARTIFACTS_FOLDER not in parts:
        return None
    last = len(parts) - 1 - parts[::-1].index(ARTIFACTS_FOLDER)
    return Path(*parts[:last])
