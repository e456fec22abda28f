"""Registered versions with the datasets of their runs."""

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag

from derain.tracking.lineage import CONTEXT, RecordedDataset, find_version, lineages
from derain.tracking.runs import RunLog
from tests.tracking.conftest import Register
from tests.tracking.samples import EVALUATION, TRAIN


def test_versions_have_the_datasets_of_their_runs(register: Register, uri: str) -> None:
    with RunLog("recorded", uri=uri) as run:
        run.params({"data": {"validation_share": 0.25}})
        run.dataset(TRAIN, "rain", "/data/rain", context="train", pairs=8)
        run.dataset(EVALUATION, "rain (2 of 8)", "/data/rain", context="validation", pairs=2)
    register("recorded", 30.0, run_id=run.run_id)
    (found,) = [it for it in lineages(uri) if it.version.name == "recorded"]
    assert found.role("train") == [RecordedDataset("train", "rain", "/data/rain", TRAIN)]
    assert [it.sha256 for it in found.role("validation", "eval")] == [EVALUATION]
    assert found.validation_share == 0.25
    for address in ("models:/recorded@champion", "models:/recorded/1"):
        assert find_version(address, uri) == found.version
    assert find_version("models:/recorded/2", uri) is None


def test_a_version_without_its_run_has_no_datasets(
    register: Register, uri: str, client: MlflowClient
) -> None:
    with RunLog("purged", uri=uri) as run:
        run.dataset(TRAIN, "rain", "/data/rain", context="train", pairs=8)
    register("purged", 30.0, run_id=run.run_id)
    client.delete_run(run.run_id)
    store = client._tracking_client.store
    store._hard_delete_run(run.run_id)  # what `mlflow gc` does
    (found,) = [it for it in lineages(uri) if it.version.name == "purged"]
    assert found.datasets == ()
    assert found.validation_share is None


def test_a_store_that_does_not_exist_has_no_versions(tmp_path: object) -> None:
    assert lineages(f"sqlite:///{tmp_path}/none.db") == []


@pytest.mark.parametrize("source", ["s3://bucket/rain", "[]", "null"])
def test_datasets_that_another_program_has_recorded_have_no_folder(
    register: Register, uri: str, client: MlflowClient, source: str
) -> None:
    name = f"other{len(source)}"
    with RunLog(name, uri=uri) as run:
        run.params({"data": {"validation_share": "a quarter"}})
    recorded = Dataset(name="rain", digest="1", source_type="s3", source=source)
    client.log_inputs(run.run_id, [DatasetInput(recorded, [InputTag(CONTEXT, "train")])])
    register(name, 30.0, run_id=run.run_id)
    (found,) = [it for it in lineages(uri) if it.version.name == name]
    assert found.role("train") == [RecordedDataset("train", "rain", "", "")]
    assert found.validation_share is None
