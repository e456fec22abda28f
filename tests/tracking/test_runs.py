"""What a run records, how it ends, and what happens while its store is unreachable."""

import hashlib
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from derain.errors import DerainError, UsageError
from derain.tracking import runs
from derain.tracking.runs import RunLog
from tests.tracking.samples import EVALUATION, TRAIN


def test_a_run_continues_while_its_store_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(runs, "END_WAITS_S", 0.2)
    with RunLog("unreachable", uri="http://127.0.0.1:9", run_id="known", outbox=tmp_path) as run:
        run.metrics(1, {"loss": 0.5})
    assert "are sent later" in caplog.text
    assert any(tmp_path.iterdir())


def test_params_are_flattened_and_long_values_end_with_their_digest(
    uri: str, client: MlflowClient
) -> None:
    long = "ü" * 7000
    many = {f"option-{number}": number for number in range(250)}
    with RunLog("params", uri=uri) as run:
        run.params({"train": {"lr": 1e-4, "widths": (1, 2)}, "long": long, "empty": {}} | many)
    stored = client.get_run(run.run_id).data.params
    assert stored["train.lr"] == "0.0001"
    assert stored["train.widths"] == "[1, 2]"
    assert stored["empty"] == "{}"
    assert stored["long"].startswith("üüü")
    assert stored["long"].endswith(hashlib.sha256(long.encode()).hexdigest())
    assert sum(key.startswith("option-") for key in stored) == 250


def test_a_tag_is_sent_and_keeps_nothing_back(uri: str, client: MlflowClient) -> None:
    with RunLog("run", uri=uri) as run:
        run.tag("derain.protocol", "rain13k v1")
        run.metrics(1, {"loss": 0.5})
    found = client.get_run(run.run_id)
    assert found.data.tags["derain.protocol"] == "rain13k v1"
    assert found.data.metrics == {"loss": 0.5}
    assert found.info.status == "FINISHED"


def test_one_step_may_have_more_metrics_than_fit_into_one_call(
    uri: str, client: MlflowClient
) -> None:
    with RunLog("wide", uri=uri) as run:
        run.metrics(7, {f"layer-{number}": float("nan") for number in range(2500)})
    assert len(client.get_run(run.run_id).data.metrics) == 2500


def test_a_locked_store_delays_nothing_and_gets_all_records_afterwards(
    tmp_path: Path, client: MlflowClient, uri: str
) -> None:
    database = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    with RunLog("locked", uri=uri, outbox=tmp_path) as run:
        assert run.flush()
        database.execute("BEGIN EXCLUSIVE")
        for step in range(3):
            run.metrics(step, {"loss": 0.5})
        assert not run.flush(timeout_s=0.2)
        database.execute("ROLLBACK")
    database.close()
    assert [p.step for p in client.get_metric_history(run.run_id, "loss")] == [0, 1, 2]
    assert not list(tmp_path.iterdir())


def test_sync_sends_the_records_of_a_run_whose_store_was_unreachable_to_the_end(
    tmp_path: Path,
    client: MlflowClient,
    uri: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "END_WAITS_S", 0.2)
    database = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    with RunLog("unsent", uri=uri, outbox=tmp_path) as run:
        assert run.flush(timeout_s=60)
        database.execute("BEGIN EXCLUSIVE")
        run.metrics(1, {"loss": 0.5})
        run.text("unsent.txt", "kept")
    database.execute("ROLLBACK")
    database.close()
    assert f"derainctl sync {tmp_path.parent}" in caplog.text
    monkeypatch.undo()
    assert runs.sync(tmp_path, uri) == {run.run_id: 0}
    assert [p.step for p in client.get_metric_history(run.run_id, "loss")] == [1]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["unsent.txt"]
    assert not list(tmp_path.iterdir())


def test_a_permanently_refused_record_does_not_block_later_ones(
    uri: str, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLog("refused", uri=uri) as run:
        run.params({"lr": 1})
        run.params({"lr": 2})  # MLflow accepts no second value
        run.metrics(1, {"loss": 0.5})
    assert "refuses a record" in caplog.text
    assert client.get_run(run.run_id).data.metrics == {"loss": 0.5}


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_the_status_says_how_a_run_ended(
    uri: str, client: MlflowClient, error: type[BaseException], status: str
) -> None:
    run = RunLog("ends", uri=uri)

    def end() -> None:
        with run:
            run.metrics(1, {"loss": 0.5})
            raise error

    with pytest.raises(error):
        end()
    ended = client.get_run(run.run_id)
    assert ended.info.status == status
    assert ended.data.metrics == {"loss": 0.5}


def test_a_trial_is_a_child_of_its_sweep(uri: str, client: MlflowClient) -> None:
    with RunLog("sweep", uri=uri, tags={"profile": "demo"}) as sweep:
        with RunLog("trial", uri=uri, parent_run_id=sweep.run_id) as trial:
            pass
        assert client.get_parent_run(trial.run_id).info.run_id == sweep.run_id
    assert client.get_run(sweep.run_id).data.tags["profile"] == "demo"


def test_a_run_can_be_continued(uri: str, client: MlflowClient) -> None:
    with RunLog("first half", uri=uri) as first:
        first.metrics(1, {"loss": 0.5})
    with RunLog("second half", uri=uri, run_id=first.run_id) as second:
        assert second.flush()
        assert client.get_run(first.run_id).info.status == "RUNNING"
        second.metrics(2, {"loss": 0.25})
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [p.step for p in client.get_metric_history(first.run_id, "loss")] == [1, 2]
    with pytest.raises(UsageError, match="no-such-run"):
        RunLog("lost", uri=uri, run_id="no-such-run").__enter__()


def test_end_children_ends_only_running_children(uri: str, client: MlflowClient) -> None:
    with RunLog("sweep", uri=uri) as sweep:
        killed = [RunLog(f"killed-{n}", uri=uri, parent_run_id=sweep.run_id) for n in range(2)]
        for trial in killed:
            trial.__enter__()  # its process is killed before __exit__
        with RunLog("done", uri=uri, parent_run_id=sweep.run_id) as done:
            pass
        assert runs.end_children(sweep.run_id, uri) == 2
        assert client.get_run(sweep.run_id).info.status == "RUNNING"
    assert {client.get_run(t.run_id).info.status for t in killed} == {"KILLED"}
    assert client.get_run(done.run_id).info.status == "FINISHED"


def test_artifacts_come_back_unchanged(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "report.md").write_text("# Report")
    with RunLog("artifacts", uri=uri) as run:
        run.image("gallery/first.png", image)
        run.image("top.png", image)
        run.text("config.yaml", "seed: 1\n")
        run.folder(tmp_path / "folder", "report")
    back = Path(client.download_artifacts(run.run_id, "", str(tmp_path)))
    for name in ("gallery/first.png", "top.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(back / name)), image)
    assert (back / "config.yaml").read_text() == "seed: 1\n"
    assert (back / "report" / "report.md").read_text() == "# Report"


def test_a_dataset_input_keeps_the_full_manifest_digest(uri: str, client: MlflowClient) -> None:
    with RunLog("lineage", uri=uri) as run:
        run.dataset(TRAIN, "Rain100L", "/data/rain100l", context="train", pairs=200)
        run.dataset(EVALUATION, "Rain100L", "s3://bucket/rain", context="validation", pairs=100)
    logged = client.get_run(run.run_id)
    found = {used.tags[0].value: used.dataset for used in logged.inputs.dataset_inputs}
    assert set(found) == {"train", "validation"}
    assert TRAIN.startswith(found["train"].digest)
    assert json.loads(found["train"].source)["manifest_sha256"] == TRAIN
    assert json.loads(found["train"].profile) == {"pairs": 200}
    assert found["validation"].source_type == "s3"
    assert logged.data.tags["validation_manifest_sha256.Rain100L"] == EVALUATION


def test_an_artifact_store_that_refuses_does_not_keep_back_metrics_and_status(
    uri: str, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "a file"
    in_the_way.touch()
    place = f"{in_the_way.as_uri()}/artifacts"
    client.create_experiment("refusing", artifact_location=place)
    outbox = tmp_path / "run" / "tracking"
    with RunLog("kept back", uri=uri, experiment="refusing", outbox=outbox) as run:
        run.text("config.yaml", "seed: 1\n")
        run.metrics(1, {"psnr_y": 30.0})
    recorded = client.get_run(run.run_id)
    assert recorded.data.metrics == {"psnr_y": 30.0}
    assert recorded.info.status == "FINISHED"
    assert "1 artifacts of kept back are not sent" in caplog.text
    assert "config.yaml cannot be stored in" in caplog.text
    assert place in caplog.text
    with pytest.raises(DerainError, match=r"1 records are still.*cannot be stored in"):
        runs.sync(outbox, uri)
    in_the_way.unlink()
    assert runs.sync(outbox, uri) == {run.run_id: 0}
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["config.yaml"]


NAMES = [
    "rain [heavy]",
    "100%",
    "what?",
    "a#b",
    "a'b\"",
    "é/雨",
    "../up",
    "./here",
    "/abs",
    "x" * 300,
]


def test_names_that_mlflow_refuses_are_recorded_under_similar_ones(
    uri: str, client: MlflowClient
) -> None:
    with RunLog("n" * 300, uri=uri) as run:
        for name in NAMES:
            run.dataset(EVALUATION, name, f"/data/{name}", context="validation", pairs=1)
            run.metrics(1, {name: 1.0})
            run.params({name: name})
    recorded = client.get_run(run.run_id)
    for found in (recorded.data.metrics, recorded.data.params):
        assert len(found) == len(NAMES)
        assert "é/雨" in found
    tags = [key for key in recorded.data.tags if key.startswith("validation_manifest_sha256.")]
    assert len(tags) == len(NAMES)
    assert len(recorded.inputs.dataset_inputs) == len(NAMES)
