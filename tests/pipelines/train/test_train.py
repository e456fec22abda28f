"""A run under Ray Train: its result, resuming it, and losing workers."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from derain import cluster
from derain.errors import (
    DerainError,
    OccupiedError,
    StoppedError,
    WeightsError,
)
from derain.pipelines.train.metrics_file import read_metrics
from derain.pipelines.train.recording import TrackingTarget, recorded
from derain.pipelines.train.resume import config_to_resume
from derain.pipelines.train.run_folder import GALLERY, RESULT, read_json
from derain.pipelines.train.verb import resume, train
from derain.training import checkpoint
from derain.training.factory import build_network, loss_of
from derain.training.ledger import read_ledger
from tests.processes import command_line, descendants


def ledger(folder: Path) -> dict[int, list[int]]:
    """The samples of all ranks, by step."""
    steps: dict[int, list[int]] = {}
    for entry in read_ledger(folder):
        steps.setdefault(entry["step"], []).extend(entry["ids"])
    return {step: sorted(ids) for step, ids in steps.items()}


def test_a_run_returns_and_writes_its_result(trained: Any) -> None:
    result, folder = trained.result, trained.config.folder
    keys = {
        "run", "folder", "steps", "resumed_from_step", "loss", "metrics", "checkpoint",
        "weights_sha256", "mlflow_run_id", "seconds",
    }  # fmt: skip
    assert keys <= set(result)
    assert result == read_json(folder / RESULT)
    assert (result["steps"], result["resumed_from_step"]) == (4, 0)
    metrics = read_metrics(folder)
    assert sorted(metrics) == [1, 2, 3, 4]
    assert (metrics[1]["loss"], metrics[4]["loss"]) == tuple(result["loss"].values())
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
    assert contexts == {"train", "validation"}
    names = {item.path for item in client.list_artifacts(recorded.info.run_id)}
    assert names == {GALLERY, checkpoint.CONFIG}


@pytest.mark.soak
def test_a_finished_run_is_resumed_with_more_steps(
    trained: Any, tmp_path: Path, store: str
) -> None:
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


@pytest.mark.soak
def test_a_start_that_died_early_is_taken_over(trained: Any, tmp_path: Path, store: str) -> None:
    """Its MLflow run, which a killed process could not end, is ended."""
    config = trained.config.replaced({"output_dir": str(tmp_path), "name": "early"}, "test")
    with recorded(config, TrackingTarget(store)) as record:
        record.flush()
    died = read_json(config.folder / "mlflow.json")["run_id"]
    client = MlflowClient(tracking_uri=store)
    client.update_run(died, status="RUNNING")
    (config.folder / "config.yaml").write_text("another: config")
    result = resume(config_to_resume(config, "early", {}))
    assert (result["resumed_from_step"], result["steps"]) == (0, 4)
    assert result["weights_sha256"] == trained.result["weights_sha256"]
    assert client.get_run(died).info.status == "KILLED"
    assert client.get_run(result["mlflow_run_id"]).info.status == "FINISHED"


def test_a_second_command_does_not_touch_a_running_run(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first command is running, or only a process that it left behind."""
    monkeypatch.setattr(checkpoint, "LOCK_TIMEOUT_S", 0.0)
    shutil.copytree(trained.config.folder, tmp_path / "one")
    moved = trained.config.replaced({"output_dir": str(tmp_path)}, "test")
    before = contents(moved.folder)
    longer = config_to_resume(moved, "one", {"train.steps": 50})
    for held in (checkpoint.command_lock, checkpoint.write_lock):
        with held(moved.folder), pytest.raises(OccupiedError, match="another process"):
            resume(longer)
    assert contents(moved.folder) == before
    fresh = moved.replaced({"name": "fresh"}, "test")
    with (
        checkpoint.command_lock(fresh.folder),
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
    metrics = read_metrics(tmp_path / "one")
    assert [step for step in metrics if "psnr_y" in metrics[step]] == [2, 4]
    assert {name: metrics[4][name] for name in result["metrics"]} == pytest.approx(
        result["metrics"]  # the ranks divide the images, at the end one process scores them all
    )
    assert result["best"]["psnr_y"] == max(metrics[step]["psnr_y"] for step in (2, 4))
    assert ledger(tmp_path / "one") == ledger(trained.config.folder)
    assert {line["rank"] for line in read_ledger(tmp_path / "one")} == {0, 1}
    assert result["metrics"]["psnr_y"] == pytest.approx(
        trained.result["metrics"]["psnr_y"], abs=0.05
    )


@pytest.mark.soak
def test_a_killed_worker_is_replaced_and_one_too_many_is_an_error(
    trained: Any, tmp_path: Path, store: str
) -> None:
    values = {"train.steps": 10**6, "train.checkpoint_every_steps": 5, "train.max_failures": 1}
    values |= {"output_dir": str(tmp_path), "name": "killed"}
    config = trained.config.replaced(values, "test")
    with (
        killing_workers(config.folder, times=2) as killed_at,
        pytest.raises(DerainError, match="Training failed") as raised,
    ):
        train(config)
    assert raised.value.exit_code == 1
    assert not (config.folder / RESULT).exists()
    first, second = killed_at
    saved = checkpoint.newest(config.folder)
    assert saved is not None
    assert saved.state.step >= second > first > 0
    steps = [line["step"] for line in read_ledger(config.folder)]
    assert steps[: saved.state.step] == list(range(saved.state.step))  # each once
    assert sorted(read_metrics(config.folder))[:second] == list(range(1, second + 1))
    run_id = read_json(config.folder / "mlflow.json")["run_id"]
    assert MlflowClient(tracking_uri=store).get_run(run_id).info.status == "FAILED"


@pytest.mark.soak
def test_a_run_whose_worker_was_killed_finishes(trained: Any, tmp_path: Path) -> None:
    values = {"train.steps": 400, "train.checkpoint_every_steps": 5, "output_dir": str(tmp_path)}
    config = trained.config.replaced({**values, "name": "replaced"}, "test")
    with killing_workers(config.folder, times=1):
        result = train(config)
    assert (result["steps"], result["resumed_from_step"] > 0) == (400, True)
    assert [line["step"] for line in read_ledger(config.folder)] == list(range(400))
    assert sorted(read_metrics(config.folder)) == list(range(1, 401))


@pytest.mark.soak
def test_sigterm_saves_and_stops_and_the_run_can_be_resumed(
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
    client = MlflowClient(tracking_uri=store)
    assert client.get_run(run_id).info.status == "KILLED"
    first_loss = read_metrics(config.folder)[1]["loss"]
    shutil.rmtree(config.folder)
    longer = {"train.steps": saved.state.step + 2}
    result = resume(config_to_resume(config, "stopped", longer))
    assert result["resumed_from_step"] == saved.state.step
    assert result["steps"] == saved.state.step + 2
    assert result["loss"]["first"] == first_loss
    assert result["mlflow_run_id"] == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert sorted(read_metrics(config.folder)) == list(range(1, result["steps"] + 1))
    assert sorted(ledger(config.folder)) == list(range(result["steps"]))


def terminate(folder: Path) -> None:
    """Send this process a SIGTERM once its run has taken steps, if the run handles it."""
    deadline = time.monotonic() + 600
    while not read_metrics(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # which would end all tests
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def killing_workers(folder: Path, times: int) -> Iterator[list[int]]:
    """Kill this test's training worker once it has saved a checkpoint, and so its replacement.

    Yields the steps of the newest checkpoints after each kill.
    """
    killed_at: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while len(killed_at) < times and not ended.wait(0.1):
            if newest_step(folder) <= max(killed_at, default=0):
                continue
            for pid in descendants(os.getpid()):
                if "RayTrainWorker" in command_line(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.5)  # until it has ended; its replacement takes longer to start
            killed_at.append(newest_step(folder))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed_at
    finally:
        ended.set()
        killer.join()


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint of the run in `folder`; 0 if it has none."""
    names = [path.name for path in folder.glob("checkpoints/step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


@pytest.mark.soak
def test_an_expected_error_in_the_worker_is_raised_unchanged(trained: Any, tmp_path: Path) -> None:
    config = trained.config.replaced({"output_dir": str(tmp_path), "train.lr": 1e30}, "test")
    with pytest.raises(DerainError, match="not finite"):
        train(config)
    assert not (config.folder / RESULT).exists()


def test_missing_weights_of_the_loss_are_named(trained: Any, tmp_path: Path) -> None:
    values = {"loss.perceptual": "vgg16", "loss.perceptual_weights": str(tmp_path / "gone.pth")}
    config = trained.config.replaced(values, "test")
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        loss_of(config, build_network(config))
