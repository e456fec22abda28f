"""Sends a run's records to MLflow."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from derain.errors import StorageError
from derain.tracking.address import hidden
from derain.tracking.outbox import Record
from derain.tracking.store import client_of, mlflow, write_lock

log = logging.getLogger(__name__)

T = TypeVar("T")

# MLflow's limits for one log_batch call.
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
PERMANENT_ERRORS = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED"}
)
"""MLflow's error codes after which sending again cannot help."""


class Sender:
    """Sends the records of one run to MLflow; sending one twice does no harm."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id
        self._client: Any = None

    def __call__(self, records: Sequence[Record]) -> int:
        """Send the first record, or as many metrics as fit into one call; returns how many.

        Raises on a temporary failure: an unreachable or locked store. A record that MLflow refuses
        permanently is logged and counts as done.
        """
        count = _leading_metrics(records) or 1
        try:
            if self._client is None:
                self._client = client_of(self._uri)
            with write_lock(self._uri):
                self._write(records[:count])
        except mlflow().exceptions.MlflowException as error:
            reason = hidden(error, self._uri)
            if error.error_code not in PERMANENT_ERRORS:
                raise StorageError(reason) from error
            if count > 1:  # one of them is refused, not all
                return self(records[:1])
            log.error("MLflow refuses a record of run %s permanently: %s", self._run_id, reason)
        return count

    def _write(self, records: Sequence[Record]) -> None:
        entities, first = mlflow().entities, records[0]
        if "metrics" in first:
            points = [entities.Metric(*point) for record in records for point in record["metrics"]]
            self._client.log_batch(self._run_id, metrics=points)
        elif "params" in first:
            for chunk in chunks(first["params"], PARAMS_PER_CALL):
                params = [entities.Param(*item) for item in chunk]
                self._client.log_batch(self._run_id, params=params)
        elif "dataset" in first:
            used_as = [entities.InputTag("mlflow.data.context", first["context"])]
            used = entities.DatasetInput(entities.Dataset(**first["dataset"]), used_as)
            self._client.log_inputs(self._run_id, [used])
            self._client.set_tag(self._run_id, *first["tag"])
        elif "tag" in first:
            self._client.set_tag(self._run_id, *first["tag"])
        elif "artifact" in first:
            self._write_artifact(Path(first["artifact"]), first["folder"])
        elif "status" in first:
            self._write_status(first["status"])
        else:
            log.error("left out a record of run %s, of no known kind: %s", self._run_id, first)

    def _write_artifact(self, file: Path, folder: str | None) -> None:
        if not file.is_file():  # it was sent before
            return
        try:
            self._client.log_artifact(self._run_id, str(file), folder)
        except mlflow().exceptions.MlflowException:
            raise
        except Exception as error:  # of the artifact store's own library, such as boto3's
            place = self._client.get_run(self._run_id).info.artifact_uri
            raise StorageError(
                f"{file.name} cannot be stored in {place}: {type(error).__name__}: "
                f"{hidden(error, self._uri)}"
            ) from error
        shutil.rmtree(file.parent)

    def _write_status(self, status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(self._run_id, status=status)
        else:
            self._client.set_terminated(self._run_id, status=status)


def _leading_metrics(records: Sequence[Record]) -> int:
    """How many records at the start are metrics and fit into one call."""
    count = points = 0
    for record in records:
        points += len(record.get("metrics", ()))
        if "metrics" not in record or points > METRICS_PER_CALL:
            break
        count += 1
    return count


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in groups of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
