"""Whether the MLflow store answers, and whether there are credentials for object stores."""

from collections.abc import Sequence

from derain.errors import DerainError
from derain.pipelines.doctor.check import Check
from derain.storage.files import is_remote, locate
from derain.tracking.store import check_store, schema_versions, tracking_uri, without_password


def mlflow_store() -> list[Check]:
    """Whether the store can be used, and whether its tables are those of this MLflow."""
    uri = tracking_uri()
    shown = without_password(uri)
    remedy = "Start the server, or set MLFLOW_TRACKING_URI to the store's address."
    try:
        check_store(uri)
        versions = schema_versions(uri)
    except DerainError as error:
        return [Check("mlflow", "fail", " ".join(str(error).split()), remedy)]
    if versions is None:
        return [Check("mlflow", "ok", f"{shown} answers, or is created by the first run")]
    found, expected = versions
    if found == expected:
        return [Check("mlflow", "ok", f"{shown}, schema {found}")]
    remedy = "Back the database up, then run `mlflow db upgrade` with its address."
    text = f"{shown}: schema {found}, but this MLflow has {expected}"
    return [Check("mlflow", "fail", text, remedy)]


def object_stores(paths: Sequence[str]) -> list[Check]:
    """Whether each s3:// or gs:// path can be listed with the credentials that are there."""
    checks = []
    for path in sorted({path for path in paths if is_remote(locate(path))}):
        try:
            there = locate(path).exists()
        except DerainError as error:
            message = " ".join(str(error).split())
            remedy = "Set AWS_ACCESS_KEY_ID and its secret, AWS_REGION and AWS_ENDPOINT_URL; or "
            remedy += "GOOGLE_APPLICATION_CREDENTIALS."
            checks.append(Check(path, "fail", message, remedy))
        else:
            checks.append(Check(path, "ok", "answers" if there else "answers; nothing there yet"))
    return checks
