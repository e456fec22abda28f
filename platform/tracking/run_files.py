"""Text files that a run has recorded, such as its config."""

from pathlib import Path
from typing import Any

from derain.errors import UsageError
from derain.tracking.address import hidden
from derain.tracking.registry import named
from derain.tracking.store import mlflow, reader_of, storage_errors, tracking_uri, without_password


def run_text(model: str, name: str, uri: str | None = None) -> str:
    """A text artifact of the run behind models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID.

    Raises UsageError if there is no such run or file, StorageError if the store does not answer.
    """
    uri = uri or tracking_uri()
    try:
        with storage_errors(uri):
            run_id = _run_id(reader_of(uri), model)
            path = mlflow().artifacts.download_artifacts(
                run_id=run_id, artifact_path=name, tracking_uri=uri
            )
    except (mlflow().exceptions.MlflowException, OSError) as error:
        raise UsageError(
            f"{model}: {name} of its run is not in the store {without_password(uri)}: "
            f"{hidden(error, uri)}. `derainctl models` lists the registered models."
        ) from error
    return Path(path).read_text(encoding="utf-8")


def _run_id(client: Any, model: str) -> str:
    kind, _, rest = model.partition(":/")
    if kind == "runs":
        return rest.split("/")[0]
    name, alias, version = named(model)
    if alias is not None:
        return client.get_model_version_by_alias(name, alias).run_id
    return client.get_model_version(name, str(version)).run_id
