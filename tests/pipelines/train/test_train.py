"""A run under Ray Train: what it leaves, how it goes on, and what a killed worker costs."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from derain import cluster
from derain.config import Config
from derain.errors import (
    DerainError,
    OccupiedError,
    StoppedError,
    StorageError,
    UsageError,
    WeightsError,
)
from derain.pipelines.train.progress import read_metrics
from derain.pipelines.train.resume import claim, config_to_resume
from derain.pipelines.train.run import (
    GALLERY,
    RESULT,
    TrackingTarget,
    read_json,
    run_in_this_process,
)
from derain.pipelines.train.verb import check_room, expected_error, resume, target_of, train
from derain.training import checkpoint
from derain.training.factory import build_network, loss_of
from derain.training.ledger import LEDGER
from derain.training.process.distributed import Rank


def ledger(folder: Path) -> dict[int, list[int]]:
    """Step to the samples of all ranks."""
    steps: dict[int, list[int]] = {}
    for line in (folder / LEDGER).read_text().splitlines():
        entry = json.loads(line)
        steps.setdefault(entry["step"], []).extend(entry["ids"])
    return {step: sorted(ids) for step, ids in steps.items()}


def test_a_run_returns_and_leaves_what_is_promised(trained: Any) -> None:
    result, folder = trained.result, trained.config.folder
    promised = {
        "run", "folder", "steps", "resumed_from_step", "loss", "metrics", "checkpoint",
        "weights_sha256", "mlflow_run_id", "seconds",
    }  # fmt: skip
    assert promised <= set(result)
    assert result == read_json(folder / RESULT)
    assert (result["steps"], result["resumed_from_step"]) == (4, 0)
    figures = read_metrics(folder)
    assert sorted(figures) == [1, 2, 3, 4]
    assert (figures[1]["loss"], figures[4]["loss"]) == tuple(result["loss"].values())
    saved = checkpoint.load(result["checkpoint"])
    assert saved.state.step == 4
    assert saved.weights_sha256() == result["weights_sha256"]
    assert sorted(ledger(folder)) == [0, 1, 2, 3]
    assert Image.open(folder / GALLERY).size[0] >= 3 * 48


def test_a_run_is_recorded(trained: Any, store: str) -> None:
    client = MlflowClient(tracking_uri=store)
    recorded = client.get_run(trained.result["mlflow_run_id"])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["psnr_y"] == trained.result["metrics"]["psnr_y"]
    assert recorded.data.metrics["input_psnr_y"] == trained.result["input"]["psnr_y"]
    losses = client.get_metric_history(recorded.info.run_id, "loss")
    assert [point.step for point in losses] == [1, 2, 3, 4]
    assert recorded.data.params["train.lr"] == "0.001"
    contexts = {used.tags[0].value for used in recorded.inputs.dataset_inputs}
    assert contexts == {"train", "eval"}
    names = {item.path for item in client.list_artifacts(recorded.info.run_id)}
    assert names == {GALLERY, checkpoint.CONFIG}


def test_a_run_is_continued(trained: Any, tmp_path: Path, store: str) -> None:
    shutil.copytree(trained.config.folder, tmp_path / "one")
    moved = trained.config.replaced({"output_dir": str(tmp_path)}, "test")
    result = resume(config_to_resume(moved, "one", {"train.steps": 6}))
    assert (result["resumed_from_step"], result["steps"]) == (4, 6)
    assert result["loss"]["first"] == trained.result["loss"]["first"]
    assert result["mlflow_run_id"] == trained.result["mlflow_run_id"]
    assert sorted(read_metrics(tmp_path / "one")) == [1, 2, 3, 4, 5, 6]
    before, after = ledger(trained.config.folder), ledger(tmp_path / "one")
    assert sorted(after) == [0, 1, 2, 3, 4, 5]
    assert before.items() <= after.items()
    assert MlflowClient(tracking_uri=store).get_run(result["mlflow_run_id"]).info.status == (
        "FINISHED"
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train.lr": 1e-4}, "train.lr"),
        ({"train.batch_size": 2}, "train.batch_size"),
        ({"model.output": "direct"}, "model.output"),
        ({"eval.protocol": "five_set"}, "eval.protocol"),
        ({"seed": 7}, "data.seed, seed"),
    ],
)
def test_a_run_is_not_continued_as_another(
    trained: Any, changed: dict[str, Any], named: str
) -> None:
    before = sorted(trained.config.folder.rglob("*"))
    with pytest.raises(UsageError, match=f"another {named}"):
        resume(config_to_resume(trained.config, "one", {**changed, "train.steps": 6}))
    assert sorted(trained.config.folder.rglob("*")) == before


def test_a_run_that_is_not_there_is_named(trained: Any) -> None:
    with pytest.raises(UsageError, match=r"nowhere.*no run to resume"):
        config_to_resume(trained.config, "nowhere", {})


def test_a_store_that_is_away_is_named_to_a_new_run_only(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert target_of(trained.config) == TrackingTarget("http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9 cannot be used"):
        target_of(trained.config.replaced({"name": "new"}, "test"))


def test_an_occupied_folder_is_left_alone(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(OccupiedError, match="--resume one"):
        train(trained.config)
    new = trained.config.replaced({"output_dir": str(tmp_path), "name": "team/new"}, "test")
    claim(new)
    (new.folder / "config.yaml").write_text("")
    with pytest.raises(OccupiedError, match=r"unfinished run.*--resume team/new"):
        claim(new)
    (new.folder / "config.yaml").rename(new.folder / "something")
    with pytest.raises(OccupiedError, match="not empty"):
        claim(new)
    with pytest.raises(OccupiedError, match="something is a file"):
        claim(new.replaced({"name": "team/new/something"}, "test"))


def test_a_place_for_uploads_that_holds_another_run_is_refused(
    trained: Any, tmp_path: Path
) -> None:
    values = {"output_dir": str(tmp_path / "runs"), "train.upload_to": str(tmp_path / "remote")}
    config = trained.config.replaced(values, "test")
    claim(config)
    (tmp_path / "remote/one/checkpoints").mkdir(parents=True)
    with pytest.raises(OccupiedError, match=r"remote/one: train\.upload_to holds.*--resume one"):
        claim(config)


def test_a_second_command_changes_nothing_of_a_running_run(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first one is there, or a process that it left."""
    monkeypatch.setattr(checkpoint, "LOCK_WAITS_S", 0.0)
    shutil.copytree(trained.config.folder, tmp_path / "one")
    moved = trained.config.replaced({"output_dir": str(tmp_path)}, "test")
    before = contents(moved.folder)
    longer = config_to_resume(moved, "one", {"train.steps": 50})
    for held in (checkpoint.commanding, checkpoint.writing):
        with held(moved.folder), pytest.raises(OccupiedError, match="another process"):
            resume(longer)
    assert contents(moved.folder) == before
    fresh = moved.replaced({"name": "fresh"}, "test")
    with (
        checkpoint.commanding(fresh.folder),
        pytest.raises(OccupiedError, match="another process"),
    ):
        train(fresh)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_workers_train_the_same_run(trained: Any, tmp_path: Path) -> None:
    if cluster.cpus() < 2:
        pytest.skip("needs two cores")
    values = {"train.num_workers": 2, "train.eval_every_steps": 2, "output_dir": str(tmp_path)}
    result = train(trained.config.replaced(values, "test"))
    figures = read_metrics(tmp_path / "one")
    assert [step for step in figures if "psnr_y" in figures[step]] == [2, 4]
    assert {name: figures[4][name] for name in result["metrics"]} == pytest.approx(
        result["metrics"]  # the ranks share the images, the end scores them alone
    )
    assert result["best"]["psnr_y"] == max(figures[step]["psnr_y"] for step in (2, 4))
    assert ledger(tmp_path / "one") == ledger(trained.config.folder)
    lines = (tmp_path / "one" / LEDGER).read_text().splitlines()
    assert {json.loads(line)["rank"] for line in lines} == {0, 1}
    assert result["metrics"]["psnr_y"] == pytest.approx(
        trained.result["metrics"]["psnr_y"], abs=0.05
    )


def test_a_killed_worker_is_an_error_and_the_checkpoint_stays(
    trained: Any, tmp_path: Path, store: str
) -> None:
    config = trained.config.replaced(
        {
            "train.steps": 10**6,
            "train.checkpoint_every_steps": 20,
            "train.max_failures": 0,
            "output_dir": str(tmp_path),
            "name": "killed",
        },
        "test",
    )
    killer = threading.Thread(target=kill_worker, args=(config.folder,))
    killer.start()
    with pytest.raises(DerainError, match="Training failed") as raised:
        train(config)
    killer.join()
    assert raised.value.exit_code == 1
    assert not (config.folder / RESULT).exists()
    saved = checkpoint.newest(config.folder)
    assert saved is not None
    assert saved.state.step > 0
    run_id = read_json(config.folder / "mlflow.json")["run_id"]
    assert MlflowClient(tracking_uri=store).get_run(run_id).info.status == "FAILED"


def test_a_worker_that_is_killed_is_replaced(trained: Any, tmp_path: Path) -> None:
    values = {"train.steps": 400, "train.checkpoint_every_steps": 5, "output_dir": str(tmp_path)}
    config = trained.config.replaced({**values, "name": "replaced"}, "test")
    killer = threading.Thread(target=kill_worker, args=(config.folder,))
    killer.start()
    result = train(config)
    killer.join()
    assert (result["steps"], result["resumed_from_step"] > 0) == (400, True)
    lines = (config.folder / LEDGER).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(400))
    assert sorted(read_metrics(config.folder)) == list(range(1, 401))


def test_sigterm_saves_and_stops_and_the_run_goes_on(
    trained: Any, tmp_path: Path, store: str
) -> None:
    remote = tmp_path / "remote"
    values = {"train.steps": 10**6, "train.checkpoint_every_steps": 10**6, "name": "stopped"}
    values |= {"output_dir": str(tmp_path / "runs"), "train.upload_to": str(remote)}
    config = trained.config.replaced(values, "test")
    terminator = threading.Thread(target=terminate, args=(config.folder,))
    terminator.start()
    with pytest.raises(StoppedError, match="--resume stopped"):
        train(config)
    terminator.join()
    saved = checkpoint.newest(config.folder)
    assert saved is not None
    assert saved.state.step >= max(read_metrics(config.folder))
    run_id = read_json(config.folder / "mlflow.json")["run_id"]
    assert MlflowClient(tracking_uri=store).get_run(run_id).info.status == "KILLED"
    shutil.rmtree(config.folder)
    longer = {"train.steps": saved.state.step + 2}
    result = resume(config_to_resume(config, "stopped", longer))
    assert result["resumed_from_step"] == saved.state.step
    assert result["steps"] == saved.state.step + 2
    assert result["mlflow_run_id"] == run_id
    assert sorted(ledger(config.folder)) == list(range(result["steps"]))


def terminate(folder: Path) -> None:
    """Send this process a SIGTERM once its run has made steps."""
    deadline = time.monotonic() + 120
    while not read_metrics(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


def test_what_the_file_says_otherwise_is_said(
    trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    edited = trained.config.replaced({"train.lr": 5e-4, "train.steps": 9}, "test")
    resumed = config_to_resume(edited, "one", {"train.steps": 9})
    assert (resumed.train.lr, resumed.train.steps) == (1e-3, 9)
    assert "train.lr: the run goes on with 0.001; the file's 0.0005 does not count" in caplog.text
    assert "train.steps" not in caplog.text
    caplog.clear()
    made = edited.replaced({"data.train": [], "data.eval": [], "train.lr": 1e-3}, "test")
    config_to_resume(made, "one", {"train.steps": 9})
    assert "does not count" not in caplog.text  # its datasets are rendered, and noted in the run


def kill_worker(folder: Path) -> None:
    """Kill this test's training worker once it has saved a checkpoint."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """All processes below one, whoever started them in between."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found += [int(child) for child in (task / "children").read_text().split()]
    return [*found, *(below for child in found for below in children(child))]


def test_an_error_in_the_worker_comes_back_as_it_is(trained: Any, tmp_path: Path) -> None:
    config = trained.config.replaced({"output_dir": str(tmp_path), "train.lr": 1e30}, "test")
    with pytest.raises(DerainError, match="not finite"):
        train(config)
    assert not (config.folder / RESULT).exists()


def test_more_workers_than_there_can_be_are_refused(trained: Any) -> None:
    with pytest.raises(UsageError, match=r"num_workers=4000.*CPU cores"):
        check_room(
            trained.config.replaced({"train.num_workers": 4000, "train.batch_size": 4000}, "test")
        )
    if not cluster.gpus():
        with pytest.raises(UsageError, match=r"GPUs.*train\.device=cpu"):
            check_room(trained.config.replaced({"train.device": "cuda"}, "test"))


def test_the_error_that_was_expected_is_found_in_its_wrappings() -> None:
    ours = WeightsError("missing")
    wrapped = RuntimeError("a worker failed")
    wrapped.__cause__ = ValueError("a task failed")
    wrapped.__cause__.__cause__ = ours
    assert expected_error(wrapped) is ours
    assert expected_error(RuntimeError("something else")) is None


def test_missing_weights_of_the_loss_are_named(trained: Any, tmp_path: Path) -> None:
    values = {"loss.perceptual": "vgg16", "loss.perceptual_weights": str(tmp_path / "gone.pth")}
    config = trained.config.replaced(values, "test")
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        loss_of(config, build_network(config))


def test_experts_start_from_one_that_was_trained_for_all(
    tiny: dict[str, Any], tmp_path: Path, store: str
) -> None:
    """And a resumed run goes on from its own checkpoint, with the first one gone."""
    experts = {"widths": [8, 8], "depths": [1, 1], "heads": [1, 1], "mgca": ["none"]}
    model = {"name": "clip_rpn", "routing": "single", **experts}
    tree = {**tiny, "name": "shared", "model": model, "output_dir": str(tmp_path)}
    shared = Config.model_validate(tree).replaced({"train.steps": 2}, "test")
    run_in_this_process(shared, TrackingTarget(store), Rank())
    first = read_json(shared.folder / RESULT)["checkpoint"]
    trained = checkpoint.load(first).model()

    values = {"model.routing": "random", "train.start_from": first, "train.lr": 1e-12}
    values |= {"name": "experts", "train.steps": 1, "train.weight_decay": 0.0}
    config = shared.replaced(values, "test")
    run_in_this_process(config, TrackingTarget(store), Rank())
    found = checkpoint.load(read_json(config.folder / RESULT)["checkpoint"]).model()
    assert len(found) == 3 * len(trained)
    for name, tensor in found.items():
        one = trained[f"experts.0.{name.split('.', 2)[2]}"]
        torch.testing.assert_close(tensor, one, rtol=1e-6, atol=1e-9)

    shutil.rmtree(shared.folder)
    run_in_this_process(config.replaced({"train.steps": 2}, "test"), TrackingTarget(store), Rank())
    assert read_json(config.folder / RESULT)["resumed_from_step"] == 1
