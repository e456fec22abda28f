"""Stores in folders of any name, stores that were moved, and stores that do not exist."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from derain.errors import StorageError, UsageError
from derain.inference.predictor import load_model_folder
from derain.tracking import champions, registry, store, ui
from derain.tracking.moved import relocate
from derain.tracking.runs import RunLog
from tests.tracking.samples import EVALUATION, TAGS
from tests.users import give_away, unprivileged


def fill(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Record a run and register a model in the store of a folder; returns the store's URI."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = store.prepare_store()
    with RunLog("run", uri=uri) as run:
        run.text("note.txt", "written")
    registry.register(
        model_folder, "net", run_id=run.run_id, scores={"psnr_y": 30.0, "ssim_y": 0.9},
        evaluation_sha256=EVALUATION, tags=TAGS, example=np.zeros((1, 32, 32, 3), np.uint8),
    )  # fmt: skip
    return uri


def modes(folder: Path) -> set[str]:
    """The modes of the files and folders below a folder, lock files excepted."""
    paths = [path for path in folder.rglob("*") if path.suffix != ".lock"]
    return {f"{path.stat().st_mode & 0o777:o}{'/' if path.is_dir() else ''}" for path in paths}


@pytest.mark.parametrize("name", ["run 1?", "x%20y", "a#b+ü &"])
def test_a_store_in_a_folder_of_any_name(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    uri = fill(tmp_path / name, model_folder, monkeypatch)

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in Path().iterdir()} == {"mlflow.db", "mlflow.db.lock", "mlruns"}
    assert [found.name for found in registry.models(uri)] == ["net"]
    found = registry.model_folder("models:/net@champion")
    assert found.is_relative_to(tmp_path / name / "mlruns")
    load_model_folder(found)
    (note,) = Path().rglob("note.txt")
    assert note.read_text() == "written"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store.tracking_uri() == uri
    assert modes(Path()) <= {"644", "755/"}


def test_a_moved_store_is_one_message_until_it_is_given_its_new_place(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "old", model_folder, monkeypatch)
    (tmp_path / "old").rename(tmp_path / "new here")
    monkeypatch.chdir(tmp_path / "new here")
    told = rf"moved or copied: .*{tmp_path}/old/mlruns, expected .*relocate\('mlflow.db'\)"

    with pytest.raises(StorageError, match=told):
        registry.model_folder("models:/net@champion")
    with pytest.raises(StorageError, match=told):
        store.prepare_store()
    with pytest.raises(StorageError, match=told), RunLog("another", outbox=tmp_path / "outbox"):
        pass
    assert [path.name for path in tmp_path.iterdir() if path.name != "outbox"] == ["new here"]

    assert relocate("mlflow.db") > 0
    assert relocate("mlflow.db") == 0
    load_model_folder(registry.model_folder("models:/net@champion"))
    with RunLog("another", outbox=tmp_path / "outbox") as run:
        run.text("second.txt", "x")
    assert len(list(Path("mlruns").rglob("second.txt"))) == 1


def test_a_copied_store_does_not_write_into_the_first(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "first", model_folder, monkeypatch)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")

    with pytest.raises(StorageError, match="moved or copied"):
        store.prepare_store()


def test_what_only_reads_creates_no_store_and_names_the_one_it_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "derain")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    named = rf"no MLflow store sqlite:///{tmp_path}/mlflow\.db.*MLFLOW_TRACKING_URI"

    assert registry.models() == []
    assert "no MLflow store sqlite:///" in caplog.text
    for ask in (
        lambda: champions.promote("net", 1),
        lambda: registry.model_folder("models:/net@champion"),
        lambda: ui.serve_ui(1),
    ):
        with pytest.raises(UsageError, match=named):
            ask()
    assert not list(tmp_path.iterdir())


def test_a_store_of_another_user_can_be_read(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = fill(tmp_path / "theirs", model_folder, monkeypatch)
    monkeypatch.chdir(tmp_path)
    give_away(tmp_path / "theirs")
    (tmp_path / "theirs").chmod(0o555)

    with unprivileged():
        assert [found.name for found in registry.models(uri)] == ["net"]
        load_model_folder(registry.model_folder("models:/net@champion", uri))
    (tmp_path / "theirs").chmod(0o755)
    (weights,) = (tmp_path / "theirs").rglob("model.safetensors")
    weights.chmod(0)
    with unprivileged(), pytest.raises(PermissionError, match=r"model\.safetensors"):
        load_model_folder(registry.model_folder("models:/net@champion", uri))


@pytest.mark.parametrize("content", [b"no database at all", None])
def test_a_file_that_is_no_store_is_named_at_once(tmp_path: Path, content: bytes | None) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(content or b"SQLite format 3\0")
    if content is None:
        database.chmod(0)
    expected = "not a sqlite file" if content else "Permission denied"

    with unprivileged(), pytest.raises(StorageError, match=rf"mlflow\.db.*{expected}"):
        store.prepare_store(f"sqlite:///{database}")
