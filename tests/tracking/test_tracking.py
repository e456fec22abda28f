"""Runs, lineage and registry, on a real sqlite store that four processes started at once."""

import ast
import hashlib
import importlib.metadata
import json
import logging
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from derain import models
from derain.errors import StorageError, UsageError
from derain.inference.predictor import Predictor, load_model_folder, save_model_folder
from derain.tracking import packing, registry, runs, store
from derain.tracking.runs import RunLog

PROCESSES = 8
POINTS = 1200
EVALUATION = hashlib.sha256(b"evaluation images").hexdigest()
TRAIN = hashlib.sha256(b"training images").hexdigest()
TAGS = {
    "train_manifest_sha256": TRAIN,
    "config_sha256": hashlib.sha256(b"config").hexdigest(),
    "protocol": "rain13k",
}
NETWORK = {
    "encoder_weights": "random",
    "encoder_layers": (1, 1, 1, 1),
    "encoder_width": 8,
    "decoder_widths": (16, 16, 8, 8, 8),
    "decoder_depths": (1, 1, 1, 1, 1),
    "output": "residual",
}

CROWD = """
import json, os, sys
import mlflow                      # once, before the processes part: it takes seconds
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store

def write(uri, points):
    prepare_store(uri)
    with RunLog("writer", uri=uri) as run:
        for step in range(points):
            run.metrics(step, {"loss": 1.0 / (step + 1), "psnr_y": float(step)})
        run.text("note.txt", "written")
    print(json.dumps({"run_id": run.run_id}), flush=True)

uri, points, folders = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
children = []
for folder in folders:
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
        write(uri, points)
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""

RACE = """
import json, os, sys
import mlflow
import numpy as np
from derain.tracking.registry import register

uri, folder, run_id, tags, *figures = sys.argv[1:]
start, go = os.pipe()
children = []
for figure in figures:
    child = os.fork()
    if child == 0:
        os.read(start, 1)
        scores = {"psnr_y": float(figure), "ssim_y": 0.9}
        made = register(
            folder, "raced", run_id=run_id, scores=scores, evaluation_sha256="e", uri=uri,
            tags=json.loads(tags), example=np.zeros((1, 16, 16, 3), np.uint8),
        )
        print(json.dumps([made.version, float(figure), made.alias]), flush=True)
        os._exit(0)
    children.append(child)
os.write(go, bytes(len(figures)))
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""

LOADER = """
import json, sys
sys.path += sys.argv[2:]   # under -S: no .pth file was read, so nothing of ours is installed
import mlflow
import numpy as np

mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/loadable@champion")
np.save("derained.npy", model.predict(np.load("batch.npy")))
print(json.dumps({name: getattr(m, "__file__", None) for name, m in sys.modules.items()}))
"""
BATCH = np.random.default_rng(0).integers(0, 256, (2, 21, 18, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_global_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks MLflow's global state for the store, instead of taking `uri`, fails."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-scheme://global")


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Eight processes, each in a folder of its own, that use a new store at the same moment."""
    root = tmp_path_factory.mktemp("with a space")
    uri = f"sqlite:///{root}/store/mlflow.db"
    folders = [root / f"worker-{number}" for number in range(PROCESSES)]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", CROWD, uri, str(POINTS), *map(str, folders)]
    ended = subprocess.run(command, check=False)
    outputs = [(folder / "stdout", folder / "stderr") for folder in folders]
    read = [(out.read_text(), errors.read_text()) for out, errors in outputs]
    assert ended.returncode == 0, read
    return {"uri": uri, "root": root, "folders": folders, "outputs": read}


@pytest.fixture(scope="module")
def uri(crowd: dict[str, Any]) -> str:
    return crowd["uri"]


@pytest.fixture(scope="module")
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = models.build("fclip_unet", **NETWORK)
    folder = tmp_path_factory.mktemp("model") / "folder"
    return save_model_folder(network, folder, "fclip_unet", NETWORK)


@pytest.fixture(scope="module")
def run_id(uri: str) -> str:
    with (
        RunLog("sweep", uri=uri) as sweep,
        RunLog("trial", uri=uri, parent_run_id=sweep.run_id) as t,
    ):
        pass
    return t.run_id


@pytest.fixture(scope="module")
def register(uri: str, model_folder: Path, run_id: str) -> Any:
    def call(name: str, psnr_y: float, **changes: Any) -> registry.Registered:
        given: dict[str, Any] = {
            "run_id": run_id,
            "scores": {"psnr_y": psnr_y, "ssim_y": 0.9},
            "evaluation_sha256": EVALUATION,
            "tags": TAGS,
            "example": np.zeros((4, 200, 300, 3), np.uint8),
            "uri": uri,
        }
        return registry.register(model_folder, name, **(given | changes))

    return call


def test_every_point_of_every_process_is_there(crowd: dict[str, Any], client: MlflowClient) -> None:
    for out, _ in crowd["outputs"]:
        run_id = json.loads(out)["run_id"]
        history = client.get_metric_history(run_id, "psnr_y")
        assert sorted((p.step, p.value) for p in history) == [(s, float(s)) for s in range(POINTS)]
        assert len(client.get_metric_history(run_id, "loss")) == POINTS
        assert client.get_run(run_id).info.status == "FINISHED"


def test_stdout_carries_our_one_document_only(crowd: dict[str, Any]) -> None:
    for out, errors in crowd["outputs"]:
        assert list(json.loads(out)) == ["run_id"]
        assert "alembic" not in errors


def test_artifacts_lie_beside_the_database_whatever_the_working_directory(
    crowd: dict[str, Any],
) -> None:
    notes = list(crowd["root"].rglob("note.txt"))
    assert len(notes) == PROCESSES
    assert all(note.is_relative_to(crowd["root"] / "store" / "mlruns") for note in notes)
    left = [path for folder in crowd["folders"] for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in left} == {"stdout", "stderr"}


def test_the_uri_is_the_variable_or_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///deeper/runs.db")
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/deeper/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert store.tracking_uri() == "https://mlflow.example.org"


def test_an_unusable_store_is_named() -> None:
    with pytest.raises(UsageError, match=r"no-such-scheme.*MLFLOW_TRACKING_URI"):
        store.prepare_store("no-such-scheme://user:secret@host/db")
    with pytest.raises(UsageError) as raised:
        store.prepare_store("no-such-scheme://user:secret@host/db")
    assert "secret" not in str(raised.value)
    with pytest.raises(StorageError, match=r"/dev/null/runs\.db cannot be used"):
        registry.models("sqlite:////dev/null/runs.db")


def test_a_server_that_is_away_is_no_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    away = "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for ask in (
        lambda: registry.models(away),
        lambda: registry.promote("net", 1, away),
        lambda: registry.model_folder("models:/net@champion", away),
        lambda: registry._provenance(store.client_of(away), "a-run", away),
    ):
        with pytest.raises(StorageError, match=r"127\.0\.0\.1:9 cannot be used.*TRACKING_URI"):
            ask()


def test_a_run_goes_on_while_its_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(runs, "END_WAITS_S", 0.2)
    with RunLog("away", uri="http://127.0.0.1:9", run_id="known", spool=tmp_path) as run:
        run.metrics(1, {"loss": 0.5})
    assert "is sent later" in caplog.text
    assert any(tmp_path.iterdir())


def test_importing_the_door_does_not_import_mlflow() -> None:
    modules = "sys, derain.tracking.runs, derain.tracking.registry"
    code = f"import {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_params_are_flattened_and_long_ones_cut_with_a_digest(
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


def test_one_step_may_have_more_metrics_than_a_call(uri: str, client: MlflowClient) -> None:
    with RunLog("wide", uri=uri) as run:
        run.metrics(7, {f"layer-{number}": float("nan") for number in range(2500)})
    assert len(client.get_run(run.run_id).data.metrics) == 2500


def test_a_locked_store_holds_nothing_up_and_gets_all_afterwards(
    tmp_path: Path, client: MlflowClient, uri: str
) -> None:
    database = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    with RunLog("locked", uri=uri, spool=tmp_path) as run:
        assert run.flush()
        database.execute("BEGIN EXCLUSIVE")
        for step in range(3):
            run.metrics(step, {"loss": 0.5})
        assert not run.flush(timeout_s=0.2)
        database.execute("ROLLBACK")
    database.close()
    assert [p.step for p in client.get_metric_history(run.run_id, "loss")] == [0, 1, 2]
    assert not list(tmp_path.iterdir())


def test_what_a_store_that_stays_away_did_not_take_is_sent_later(
    tmp_path: Path,
    client: MlflowClient,
    uri: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "END_WAITS_S", 0.2)
    database = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    with RunLog("away", uri=uri, spool=tmp_path) as run:
        assert run.flush(timeout_s=60)
        database.execute("BEGIN EXCLUSIVE")
        run.metrics(1, {"loss": 0.5})
        run.text("note.txt", "kept")
    database.execute("ROLLBACK")
    database.close()
    assert f"derainctl sync {tmp_path.parent}" in caplog.text
    monkeypatch.undo()
    assert runs.sync(tmp_path, uri) == {run.run_id: 0}
    assert [p.step for p in client.get_metric_history(run.run_id, "loss")] == [1]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["note.txt"]
    assert not list(tmp_path.iterdir())


def test_what_the_store_refuses_for_good_holds_up_nothing(
    uri: str, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLog("refused", uri=uri) as run:
        run.params({"lr": 1})
        run.params({"lr": 2})  # MLflow takes no second value
        run.metrics(1, {"loss": 0.5})
    assert "refuses a record" in caplog.text
    assert client.get_run(run.run_id).data.metrics == {"loss": 0.5}


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_how_a_run_ended_is_recorded(
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


def test_only_children_that_still_run_are_ended(uri: str, client: MlflowClient) -> None:
    with RunLog("sweep", uri=uri) as sweep:
        killed = [RunLog(f"killed-{n}", uri=uri, parent_run_id=sweep.run_id) for n in range(2)]
        for trial in killed:
            trial.__enter__()  # and its process dies: __exit__ is never reached
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


def test_a_dataset_input_keeps_the_whole_manifest_digest(uri: str, client: MlflowClient) -> None:
    with RunLog("lineage", uri=uri) as run:
        run.dataset(TRAIN, "Rain100L", "/data/rain100l", context="train", pairs=200)
        run.dataset(EVALUATION, "Rain100L", "s3://bucket/rain", context="eval", pairs=100)
    logged = client.get_run(run.run_id)
    found = {used.tags[0].value: used.dataset for used in logged.inputs.dataset_inputs}
    assert set(found) == {"train", "eval"}
    assert TRAIN.startswith(found["train"].digest)
    assert json.loads(found["train"].source)["manifest_sha256"] == TRAIN
    assert json.loads(found["train"].profile) == {"pairs": 200}
    assert found["eval"].source_type == "s3"
    assert logged.data.tags["eval_manifest_sha256.Rain100L"] == EVALUATION


def test_the_better_one_on_the_same_images_becomes_champion(
    register: Any, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain.tracking")
    assert register("ranking", 30.0).alias == "champion"
    assert register("ranking", 30.0).alias == "challenger"
    better = register("ranking", 30.1 + 0.2)
    assert (better.alias, better.version) == ("champion", 3)
    other = register("ranking", 45.0, evaluation_sha256=TRAIN)
    assert other.alias == "challenger"
    assert "cannot be compared" in other.reason
    assert other.reason in caplog.text
    assert register("ranking", 45.0, tags=TAGS | {"protocol": "five_set"}).alias == "challenger"
    listed = {v.version: v for v in registry.models(uri) if v.name == "ranking"}
    assert {number: v.aliases for number, v in listed.items() if v.aliases} == {
        3: ("champion",),
        5: ("challenger",),
    }
    assert float(listed[3].tags["psnr_y"]) == 30.1 + 0.2


def test_versions_that_are_registered_at_once_stand_as_if_one_after_another(
    uri: str, model_folder: Path, run_id: str, client: MlflowClient
) -> None:
    given = [uri, str(model_folder), run_id, json.dumps(TAGS)]
    command = [sys.executable, "-c", RACE, *given, "31", "34", "33", "32"]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    made = sorted(json.loads(line) for line in told.splitlines())
    assert [version for version, _, _ in made] == [1, 2, 3, 4]
    best = 0.0
    for _, figure, alias in made:
        assert alias == ("champion" if figure > best else "challenger")
        best = max(best, figure)
    (champion,) = [version for version, figure, _ in made if figure == 34]
    assert client.get_registered_model("raced").aliases["champion"] == champion


def test_every_address_of_a_model_leads_to_its_folder(
    register: Any, uri: str, model_folder: Path, tmp_path: Path
) -> None:
    with RunLog("addressed", uri=uri) as run:
        (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
        run.folder(tmp_path, "other")
    registered = register("addressed", 30.0, run_id=run.run_id)
    weights = (model_folder / "model.safetensors").read_bytes()
    for address in (registered.uri, "models:/addressed@champion", f"runs:/{run.run_id}/model"):
        found = registry.model_folder(address, uri)
        assert (found / "model.safetensors").read_bytes() == weights
        load_model_folder(found)
    for address in ("models:/addressed/9", "models:/addressed@best", f"runs:/{run.run_id}/none"):
        with pytest.raises(UsageError, match="is not in the store"):
            registry.model_folder(address, uri)
    with pytest.raises(UsageError, match="no model of derain-platform"):
        registry.model_folder(f"runs:/{run.run_id}/other", uri)


def test_promotion_moves_the_alias(register: Any, uri: str, client: MlflowClient) -> None:
    register("promoted", 30.0)
    register("promoted", 20.0)
    promoted = registry.promote("promoted", 2, uri)
    assert (promoted.version, promoted.aliases) == (2, ("champion",))
    assert client.get_registered_model("promoted").aliases == {"champion": 2}
    with pytest.raises(UsageError, match="no version 9"):
        registry.promote("promoted", 9, uri)
    with pytest.raises(UsageError, match="unheard-of"):
        registry.promote("unheard-of", 1, uri)


def test_a_version_carries_its_lineage(register: Any, client: MlflowClient) -> None:
    registered = register("lineage", 31.5)
    run_id = client.get_model_version("lineage", "1").run_id
    tags = client.get_model_version("lineage", str(registered.version)).tags
    assert TAGS.items() <= tags.items()
    assert tags["run_id"] == run_id
    assert tags["sweep_run_id"] == client.get_parent_run(run_id).info.run_id
    assert tags["package_version"] == importlib.metadata.version("derain-platform")
    assert tags["evaluation_sha256"] == EVALUATION
    outputs = client.get_run(run_id).outputs.model_outputs
    locations = {client.get_logged_model(o.model_id).artifact_location for o in outputs}
    assert client.get_model_version("lineage", "1").source in locations


@pytest.mark.parametrize(
    ("name", "psnr_y", "named"), [("a/b", 30.0, "a/b"), ("diverged", float("nan"), "psnr_y")]
)
def test_what_cannot_be_compared_is_not_registered(
    register: Any, uri: str, name: str, psnr_y: float, named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        register(name, psnr_y)
    assert name not in {version.name for version in registry.models(uri)}


def test_a_version_without_lineage_is_a_defect_of_the_caller(register: Any) -> None:
    with pytest.raises(ValueError, match="config_sha256"):
        register("untagged", 30.0, tags={"protocol": "rain13k", "train_manifest_sha256": TRAIN})


def test_the_logged_model_holds_nothing_pickled(
    register: Any, client: MlflowClient, capfd: pytest.CaptureFixture[str]
) -> None:
    registered = register("contents", 30.0)
    assert capfd.readouterr().out == ""
    location = client.get_model_version_download_uri("contents", str(registered.version))
    folder = Path(location.removeprefix("file://").replace("%20", " "))
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    assert "loader_module: derain.inference.predictor" in (folder / "MLmodel").read_text()
    assert (folder / "input_example.json").stat().st_size < 20_000
    assert not list((folder / "code" / "derain").glob("__init__.py"))


def test_the_requirements_name_all_that_the_staged_code_imports() -> None:
    package = packing.PACKAGE
    imported = set()
    for staged in packing.STAGED_MODULES:
        path = package / staged
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            imported |= _imports(ast.parse(file.read_text()))
    ours = {name for name in imported if name.startswith("derain.")}
    allowed = {Path(staged).stem for staged in packing.STAGED_MODULES}
    assert {name.split(".")[1] for name in ours} <= allowed
    theirs = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"derain"}
    distributions = {importlib.metadata.packages_distributions()[name][0] for name in theirs}
    assert distributions <= set(packing.STAGED_REQUIREMENTS)


def _imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_a_model_version_loads_by_its_alias_without_our_package(
    register: Any, uri: str, model_folder: Path, tmp_path: Path
) -> None:
    """In an interpreter that has MLflow and torch, and nothing of ours but what is in the model."""
    register("loadable", 30.0)
    np.save(tmp_path / "batch.npy", BATCH)
    site_packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", LOADER, uri, *site_packages],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "derained.npy"), _derained(model_folder))
    present = json.loads(loaded.stdout.splitlines()[-1])
    assert "code/derain" in present["derain.inference.predictor"]
    assert not {"ray", "derain.training", "derain.tune", "derain.tracking"} & set(present)


def test_a_model_version_loads_where_our_package_is_imported(
    register: Any, client: MlflowClient, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = register("beside", 30.0)
    location = client.get_model_version_download_uri("beside", str(registered.version))
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code in front
    model = mlflow.pyfunc.load_model(location)
    np.testing.assert_array_equal(model.predict(BATCH), _derained(model_folder))


def _derained(model_folder: Path) -> np.ndarray:
    predictor = Predictor(load_model_folder(model_folder))
    return np.stack([predictor.derain(image) for image in BATCH])


def test_the_commit_is_that_of_the_checkout_which_tracks_the_file(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        done = subprocess.run(
            ["git", *identity, *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    tracked, installed = tmp_path / "tracked.py", tmp_path / "installed.py"
    git("init")
    tracked.write_text("1")
    git("add", "tracked.py")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")
    installed.write_text("1")
    assert packing.git_commit(tracked) == git("rev-parse", "HEAD")
    assert packing.git_commit(installed) is None
    tracked.write_text("2")
    assert packing.git_commit(tracked) == git("rev-parse", "HEAD") + "-dirty"
