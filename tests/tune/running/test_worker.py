"""A kept process: the same bits as a new one, nothing done twice, no folder shared."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.pipelines.train.metrics_file import read_metrics
from derain.pipelines.train.run_folder import IDENTITY, PAUSED, RESULT, read_json
from derain.tracking.outbox import OUTBOX_FOLDER, SUFFIX
from derain.tracking.store import client_of, prepare_store
from derain.training import checkpoint
from derain.tune.running import worker
from derain.tune.running.worker import BrokenProcessError, Work, perform


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An MLflow store for the runs of all tests."""
    return {"uri": prepare_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")}


def config(tiny: dict[str, Any], folder: Path, name: str, **train: Any) -> Config:
    tree = {**tiny, "name": name, "output_dir": str(folder), "train": {**tiny["train"], **train}}
    return Config.model_validate(tree)


def work(config: Config, store: dict[str, Any], until: int = 4, **given: Any) -> Work:
    tree = config.model_dump(mode="json")
    return Work(names=[config.name], configs=[tree], until=until, target=store, **given)


def test_segments_in_one_process_end_with_the_bits_of_one_run(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    whole, parts = (config(tiny, tmp_path, name) for name in ("whole", "parts"))
    (once,) = perform(work(whole, store))
    (paused,) = perform(work(parts, store, until=2))
    assert (paused.status, paused.step) == ("paused", 2)
    assert paused.metrics == read_json(parts.folder / PAUSED)["metrics"]
    assert set(paused.metrics) == set(once.metrics)
    perform(work(config(tiny, tmp_path, "between", lr=0.1), store))  # must not affect the next
    (done,) = perform(work(parts, store))
    assert (done.status, done.step) == ("finished", 4)
    assert done.result["weights_sha256"] == once.result["weights_sha256"]
    assert done.metrics == once.metrics
    assert done.result["resumed_from_step"] == 2


def test_finished_work_is_not_repeated(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    planned = config(tiny, tmp_path, "known")
    for until, file in ((2, PAUSED), (4, RESULT)):
        first = perform(work(planned, store, until=until))
        written = (planned.folder / file).stat().st_mtime_ns
        assert perform(work(planned, store, until=until)) == first
        assert (planned.folder / file).stat().st_mtime_ns == written


def test_metrics_of_a_killed_process_are_still_sent(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    """It had written its result, and died before the store received the last metrics."""
    planned = config(tiny, tmp_path, "cut")
    perform(work(planned, store))
    run_id = read_json(planned.folder / IDENTITY)["run_id"]
    client = client_of(store["uri"])
    client.update_run(run_id, status="RUNNING")
    waiting = planned.folder / OUTBOX_FOLDER / f"{run_id}.1-1{SUFFIX}"
    waiting.write_text(json.dumps({"metrics": [["late", 0.5, 0, 4]]}) + "\n")
    perform(work(planned, store))
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics["late"]) == ("FINISHED", 0.5)


def test_training_continues_from_a_copied_checkpoint(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    parent = config(tiny, tmp_path, "parent", lr=0.01)
    child = config(tiny, tmp_path, "child", lr=0.001)
    perform(work(parent, store, until=2))
    perform(work(child, store, until=2))
    given = {"copies": (str(parent.folder), 2), "values": {"train.lr": 0.02, "loss": {"a": 1}}}
    moved = config(tiny, tmp_path, "child", lr=0.02)
    (done,) = perform(work(moved, store, **given))
    same = config(tiny, tmp_path, "parent", lr=0.02)
    (expected,) = perform(work(same, store))
    assert done.result["weights_sha256"] == expected.result["weights_sha256"]
    run = client_of(store["uri"]).get_run(read_json(child.folder / IDENTITY)["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["value.train.lr"] == 0.02
    assert run.data.metrics["value.loss.a"] == 1.0
    newest = checkpoint.newest(child.folder)
    assert newest
    assert newest.config.train.lr == 0.02


def test_an_expected_error_is_an_outcome_and_the_process_survives(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    (outcome,) = perform(work(config(tiny, tmp_path, "endless", lr=1e30), store))
    assert (outcome.status, outcome.may_pass) == ("failed", False)
    assert "not finite" in str(outcome.error)


@pytest.mark.parametrize("beside", [True, False])
def test_an_unexpected_error_ends_the_process_and_names_its_trial(
    beside: bool, tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    """The metrics file of one trial is a folder; the trial beside it has done nothing wrong."""
    bad, good = (config(tiny, tmp_path, name) for name in ("bad", "good"))
    (bad.folder / "metrics.jsonl").mkdir(parents=True)
    trials = [good, bad] if beside else [bad]
    trees = [trial.model_dump(mode="json") for trial in trials]
    with pytest.raises(BrokenProcessError) as raised:
        perform(Work([trial.name for trial in trials], trees, 4, store))
    again = copy.copy(raised.value)  # made anew from its arguments, as Ray does
    outcomes = {outcome["trial"]: outcome for outcome in again.outcomes}
    assert (outcomes["bad"]["status"], outcomes["bad"]["may_pass"]) == ("failed", True)
    assert "metrics.jsonl: Is a directory" in outcomes["bad"]["error"]
    if beside:
        assert outcomes["good"]["status"] == "interrupted"


def test_a_share_of_a_gpu_is_a_share_of_its_memory(
    tiny: dict[str, Any],
    store: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process says so to torch before it trains; a stand-in, as there may be no GPU."""
    limits: list[float] = []
    monkeypatch.setattr(worker, "limit_memory", limits.append)
    for name, share in (("whole", 1.0), ("quarter", 0.25)):
        planned = config(tiny, tmp_path, name, device="auto")
        perform(work(planned, store, gpu_share=share))
    perform(work(config(tiny, tmp_path, "cpu", device="cpu"), store, gpu_share=0.25))
    assert limits == [0.25]


def test_costs_are_measured_on_the_network_and_the_run(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    costs = ("parameters", "flops", "seconds")
    (outcome,) = perform(work(config(tiny, tmp_path, "counted"), store, costs=costs))
    assert outcome.costs["parameters"] > 1000
    assert outcome.costs["flops"] > 1e6
    assert outcome.costs["seconds"] > 0


def test_a_trial_stopped_by_patience_costs_only_its_own_steps(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    early = {"lr": 1e-12, "steps": 50, "eval_every_steps": 1, "patience_evals": 2}
    planned = config(tiny, tmp_path, "early", **early)
    (outcome,) = perform(work(planned, store, until=50, costs=("seconds",)))
    assert outcome.step < 50
    rate = read_metrics(planned.folder)[outcome.step]["steps_per_s"]
    assert outcome.costs["seconds"] == outcome.step / rate


def test_a_metric_that_is_not_finite_is_a_failure(
    tiny: dict[str, Any], store: dict[str, Any], tmp_path: Path
) -> None:
    planned = config(tiny, tmp_path, "nan")
    perform(work(planned, store))
    text = (planned.folder / RESULT).read_text()
    psnr = read_json(planned.folder / RESULT)["metrics"]["psnr_y"]
    (planned.folder / RESULT).write_text(text.replace(repr(psnr), "NaN"))
    (outcome,) = perform(work(planned, store))
    assert (outcome.status, outcome.may_pass) == ("failed", False)
    assert "psnr_y is nan" in str(outcome.error)


def test_two_processes_do_not_train_in_one_folder(
    tiny: dict[str, Any],
    store: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "LOST_TIMEOUT_S", 0.2)
    planned = config(tiny, tmp_path, "held")
    planned.folder.mkdir()
    with checkpoint.write_lock(planned.folder):
        (outcome,) = perform(work(planned, store))
    assert (outcome.status, outcome.may_pass) == ("failed", True)
    assert "another process is training" in str(outcome.error)
    (outcome,) = perform(work(planned, store))
    assert outcome.status == "finished"
