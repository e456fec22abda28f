"""Copies a sqlite store of MLflow, with its artifacts, to the server's database and S3 store.

    start.sh SETTINGS python migrate.py mlflow.db

Both must have the tables of the same MLflow; the server's must have no runs yet. Nothing may write
to either meanwhile. The sqlite file and its artifacts stay as they are. MLflow 3.17 has no command
for this.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import boto3
import sqlalchemy
from mlflow.store.db.base_sql_model import Base
from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version
from mlflow.store.model_registry.dbmodels import models as registry
from mlflow.store.tracking.dbmodels import models as tracking
from mlflow.store.workspace.dbmodels import models as workspaces
from sqlalchemy import Connection, Table, func, inspect, select, text

MODELS = (tracking, registry, workspaces)
"""They enter their tables into `Base.metadata` when they are imported."""
ARTIFACTS = "mlruns"
PLACES = {
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "logged_models": ["artifact_location"],
    "model_versions": ["source", "storage_location"],
}
"""Columns with the URI of a folder of artifacts."""
ROWS = 5000
"""In one statement."""


def main(file: Path) -> None:
    """Copy everything, and print what was copied."""
    source = sqlalchemy.create_engine(f"sqlite:///{file.absolute()}")
    target = sqlalchemy.create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])
    for engine in (source, target):
        if _get_schema_version(engine) != _get_latest_schema_revision():
            sys.exit(f"{engine.url}: tables of another MLflow; call `mlflow db upgrade` for it")
    with source.connect() as before, target.begin() as after:
        if after.scalar(text("SELECT count(*) FROM runs")):
            sys.exit(f"{target.url}: has runs already")
        tables = _tables(before)
        for table in reversed(tables):
            after.execute(table.delete())  # what a new store has by itself
        rows = {table.name: _copy(table, before, after, file) for table in tables}
        _count_on(after, tables)
        for table in tables:
            found = after.scalar(select(func.count()).select_from(table))
            if found != rows[table.name]:
                sys.exit(f"{table.name}: {found} of {rows[table.name]} rows; nothing is copied")
        files = _upload(file.absolute().parent / ARTIFACTS)
    for name, count in rows.items():
        if count:
            print(f"{name}: {count} rows")
    print(f"artifacts: {files} files")


def _tables(before: Connection) -> list[Table]:
    """All tables with rows, in an order in which each comes after those that it refers to."""
    known = Base.metadata
    names = set(inspect(before).get_table_names()) - {"alembic_version"}
    for name in sorted(names - set(known.tables)):
        if before.scalar(text(f'SELECT count(*) FROM "{name}"')):
            sys.exit(f"{name}: rows of a table that MLflow does not name; nothing is copied")
    return [table for table in known.sorted_tables if table.name in names]


def _copy(table: Table, before: Connection, after: Connection, file: Path) -> int:
    count = 0
    for part in before.execute(select(table)).mappings().partitions(ROWS):
        rows = [_moved(table.name, dict(row), file) for row in part]
        after.execute(table.insert(), rows)
        count += len(rows)
    return count


def _moved(table: str, row: dict[str, object], file: Path) -> dict[str, object]:
    """The row with the artifacts' new place, if they are beside the sqlite file."""
    folder = file.absolute().parent / ARTIFACTS
    for column in PLACES.get(table, ()):
        for beside in (folder.as_uri(), str(folder)):  # the experiment "Default" has a path
            if str(row[column]).startswith(f"{beside}/"):
                row[column] = f"mlflow-artifacts:{str(row[column]).removeprefix(beside)}"
    return row


def _count_on(after: Connection, tables: list[Table]) -> None:
    """Have PostgreSQL number new rows after the copied ones."""
    for table in tables:
        for column in table.primary_key:
            name = after.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
            if name is not None:
                last = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
                after.execute(select(func.setval(name, last, False)))


def _upload(folder: Path) -> int:
    """Copy the artifacts to the place that the server is given; returns how many files."""
    place = urlparse(os.environ["ARTIFACTS"])
    store = boto3.client("s3")
    count = 0
    for path in _files(folder):
        parts = [place.path.strip("/"), path.relative_to(folder).as_posix()]
        store.upload_file(str(path), place.netloc, "/".join(filter(None, parts)))
        count += 1
    return count


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
