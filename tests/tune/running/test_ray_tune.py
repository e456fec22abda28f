"""Segments under Ray Tune: in the order of the queue, retried after a crash, journalled."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from derain.config import Config
from derain.pipelines.train.run import TrackingTarget
from derain.tracking.store import prepare_store
from derain.training.process.interrupt import stop_requested
from derain.tune.journal import Journal
from derain.tune.running import ray_tune
from derain.tune.running.queue import restore_queue
from derain.tune.running.ray_tune import QueueSearcher, run_trials
from derain.tune.running.worker import BrokenProcessError, Work

RATES = {"low": 1e-4, "middle": 1e-3, "high": 1e-2}


@pytest.fixture
def planned(tiny: dict[str, Any], tmp_path: Path) -> Config:
    sweep = {"space": {"train.lr": {"grid": RATES}}, "cohort": "off", "retries": 0}
    tree = {**tiny, "name": "sweep", "output_dir": str(tmp_path), "sweep": sweep}
    return Config.model_validate(tree)


@pytest.fixture
def journal(planned: Config) -> Iterator[Journal]:
    planned.folder.mkdir()
    with Journal.open(planned.folder) as journal:
        journal.write("plan", version=1, name=planned.name, ahead=4)
        yield journal


def searcher(config: Config, journal: Journal, *, cohort: int, retries: int) -> QueueSearcher:
    """A searcher that sends only the names of the trials."""
    return QueueSearcher(
        restore_queue(config, journal.events),
        journal,
        lambda segments: Work([s.trials[0].name for s in segments], [], segments[0].until, {}),
        cohort=cohort,
        retries=retries,
    )


def suggested(search: QueueSearcher, trial_id: str) -> list[str] | str | None:
    """The names of the trials of the next cohort, or what else `suggest` returns."""
    suggestion = search.suggest(trial_id)
    return suggestion["work"]["names"] if isinstance(suggestion, dict) else suggestion


def finished(*names: str) -> dict[str, Any]:
    """A result of Ray Tune in which these trials have finished."""
    return {"outcomes": [{"trial": name, "status": "finished", "step": 4} for name in names]}


def history(journal: Journal) -> list[str]:
    """Every event about a segment, with the name of its trial."""
    return [f"{e['event']} {e['key'].split('@')[0]}" for e in journal.events if "key" in e]


def test_segments_are_suggested_in_the_order_of_the_queue(
    planned: Config, journal: Journal
) -> None:
    search = searcher(planned, journal, cohort=2, retries=1)
    assert suggested(search, "a") == ["low", "middle"]
    assert suggested(search, "b") == ["high"]
    assert suggested(search, "c") is None, "nothing is ready, but the sweep has not finished"
    search.on_trial_complete("b", finished("high"))
    search.on_trial_complete("a", finished("low", "middle"))
    assert suggested(search, "d") == QueueSearcher.FINISHED
    started = [event["beside"] for event in journal.events if event["event"] == "started"]
    assert started == [["middle@4"], ["low@4"], []]
    assert history(journal)[3:] == ["ended high", "ended low", "ended middle"]


def test_a_crashed_cohort_is_retried_trial_by_trial_until_the_retries_are_used_up(
    planned: Config, journal: Journal
) -> None:
    search = searcher(planned, journal, cohort=2, retries=1)
    assert suggested(search, "a") == ["low", "middle"]
    search.on_trial_complete("a", error=True)
    search.on_crash("a", "Traceback:\n  ...\nMemoryError: no memory\n")
    assert [suggested(search, "b"), suggested(search, "c")] == [["low"], ["middle"]]
    search.on_crash("b", "")
    search.on_trial_complete("c", finished("middle"))
    assert suggested(search, "d") == ["high"]
    (last,) = [e for e in journal.events if e["event"] == "ended" and e["key"] == "low@4"]
    assert last["outcomes"][0]["error"] == "its process died"
    retried = [event["error"] for event in journal.events if event["event"] == "retried"]
    assert retried == ["MemoryError: no memory"] * 2


def test_retries_are_counted_across_a_resume(planned: Config, journal: Journal) -> None:
    for _ in range(2):
        search = searcher(planned, journal, cohort=1, retries=1)
        assert suggested(search, "a") == ["low"]
        search.on_crash("a", "")
    assert history(journal) == ["started low", "retried low", "started low", "ended low"]


def test_after_a_request_to_stop_running_trials_save_and_no_other_begins(
    planned: Config, journal: Journal
) -> None:
    search = searcher(planned, journal, cohort=1, retries=1)
    assert [suggested(search, "a"), suggested(search, "b")] == [["low"], ["middle"]]
    search.ask_to_stop()
    folders = {name: planned.folder / name for name in RATES}
    assert [stop_requested(folders[name]) for name in RATES] == [True, True, False]
    assert suggested(search, "c") == QueueSearcher.FINISHED
    stopped = {"trial": "low", "status": "failed", "step": 2, "may_pass": True}
    search.on_trial_complete("a", {"outcomes": [stopped]})
    search.on_trial_complete("b", finished("middle"))  # it was at its end
    assert history(journal) == ["started low", "started middle", "ended middle"]
    again = searcher(planned, journal, cohort=1, retries=1)
    assert [suggested(again, "a"), suggested(again, "b")] == [["low"], ["high"]]


def test_only_the_trial_that_broke_a_process_is_charged_for_it(
    planned: Config, journal: Journal
) -> None:
    search = searcher(planned, journal, cohort=2, retries=0)
    assert suggested(search, "a") == ["low", "middle"]
    outcomes = [
        {"trial": "low", "status": "failed", "step": 2, "error": "CUDA error", "may_pass": True},
        {"trial": "middle", "status": "interrupted", "step": 0},
    ]
    search.on_crash("a", "Traceback:", BrokenProcessError("CUDA error", outcomes))
    assert suggested(search, "b") == ["middle"]
    search.on_trial_complete("b", finished("middle"))
    assert history(journal) == [
        "started low", "started middle", "ended low", "started middle", "ended middle",
    ]  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("cohort", [1, 2])
@pytest.mark.usefixtures("ray_cluster")
def test_a_crash_is_journalled_and_the_other_trials_finish(
    cohort: int, planned: Config, journal: Journal
) -> None:
    """Under Ray; the metrics file of one trial is a folder, which no trial expects."""
    planned = planned.replaced({"sweep.cohort": cohort}, "test")
    (planned.folder / "low" / "metrics.jsonl").mkdir(parents=True)
    target = TrackingTarget(prepare_store(f"sqlite:///{planned.folder}/mlflow.db"))
    queue = restore_queue(planned, journal.events)
    run_trials(planned, queue, journal, target, at_once=1)
    assert queue.finished
    (trace,) = (event["trace"] for event in journal.events if event["event"] == "crashed")
    assert "IsADirectoryError" in trace
    beside = ["started middle"] if cohort == 2 else []
    assert history(journal) == [
        "started low", *beside, "ended low",
        "started middle", "ended middle", "started high", "ended high",
    ]  # fmt: skip
    ends = [event["outcomes"][0] for event in journal.events if event["event"] == "ended"]
    assert [end["status"] for end in ends] == ["failed", "finished", "finished"]
    assert "Is a directory" in ends[0]["error"]
    assert not (planned.folder / "ray").exists()


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_the_address_of_the_store_is_in_no_file(
    planned: Config, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have a password; one of sqlite has none, so another part of it stands in."""
    monkeypatch.setattr(ray_tune, "shutil", SimpleNamespace(rmtree=lambda *_, **__: None))
    planned = planned.replaced({"sweep.space": {"train.lr": {"grid": [1e-3]}}}, "test")
    secret = "timeout=27182818284590"
    store = planned.folder.parent.with_name("store")
    store.mkdir()
    target = TrackingTarget(prepare_store(f"sqlite:///{store}/mlflow.db?{secret}"))
    queue = restore_queue(planned, journal.events)
    run_trials(planned, queue, journal, target, at_once=1)
    assert [event["outcomes"][0]["status"] for event in journal.events[2:]] == ["finished"]
    assert list((planned.folder / "ray").rglob("experiment_state-*.json"))  # it has been kept
    session = ray._private.worker._global_node.get_session_dir_path()
    for folder in (planned.folder, Path(session)):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                assert secret.encode() not in content, path
                assert secret.encode().hex().encode() not in content, path  # pickled, as text
