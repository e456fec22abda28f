"""`derainctl runs` lists runs and sweeps by what their files say, and by nothing else."""

from pathlib import Path

import pytest

from derain.cli.printed import runs as printed
from derain.errors import UsageError
from derain.pipelines.train.metrics_file import append_metrics
from derain.pipelines.train.run_folder import noting_failure
from derain.training import checkpoint
from derain.tune.journal import Journal
from derain.tune.runs.clean import removable
from derain.tune.runs.compare import compare
from derain.tune.runs.found import check_places, find, list_all
from derain.tune.runs.run_state import read_run
from derain.tune.runs.shown import show
from derain.tune.runs.sweep_state import read_sweep
from derain.tune.runs.watch import look
from tests.tune.runs import made
from tests.users import unprivileged


def test_a_run_is_running_stopped_or_finished(tmp_path: Path) -> None:
    folder = made.run(tmp_path, psnr={2: 31.5, 4: 29.0})
    stopped = read_run(folder, "run")
    assert (stopped.state, stopped.step, stopped.steps) == ("stopped", 4, 4)
    assert stopped.best == {"metric": "psnr_y", "value": 31.5, "step": 2}
    assert stopped.eta_s is None
    (folder / checkpoint.CONFIG).write_text(made.config_of(tmp_path, steps=10).to_yaml())
    with checkpoint.command_lock(folder):
        running = read_run(folder, "run")
    assert (running.state, running.eta_s) == ("running", 3.0)  # 6 steps at 2 per second
    made.finish(folder)
    assert read_run(folder, "run").state == "finished"


def test_why_a_run_failed_is_in_the_list_and_a_request_to_stop_is_no_failure(
    tmp_path: Path,
) -> None:
    folder = made.run(tmp_path)
    with pytest.raises(UsageError), noting_failure(folder):
        raise UsageError("no GPU here")
    (listed,) = list_all([tmp_path])
    assert (listed.state, listed.error) == ("failed", "no GPU here")


def test_a_look_at_a_lock_does_not_keep_a_command_from_starting(tmp_path: Path) -> None:
    folder = made.run(tmp_path)
    for _ in range(3):
        read_run(folder, "run")
        with checkpoint.command_lock(folder):
            pass


def test_a_sweep_counts_its_trials(tmp_path: Path) -> None:
    planned = {"low": 1e-4, "mid": 1e-3, "high": 1e-2}
    folder = made.sweep(tmp_path, "low", "mid", planned=planned)
    made.finish(folder / "low")
    made.end(folder, "low", "finished")
    made.end(folder, "mid", "failed", "loss is nan")
    entry, trials = read_sweep(folder, "search")
    assert (entry.kind, entry.state) == ("sweep", "stopped")
    assert entry.trials == {"planned": 3, "finished": 1, "failed": 1}
    assert entry.best == {"metric": "psnr_y", "value": 30.0, "step": 4, "trial": "low"}
    assert [(trial.name, trial.state, trial.error) for trial in trials] == [
        ("search/low", "finished", None),
        ("search/mid", "failed", "loss is nan"),
    ]
    with Journal.open(folder):
        assert read_sweep(folder, "search")[0].state == "running"
    (folder / "sweep.json").write_text('{"best": "low", "trials": []}')
    assert read_sweep(folder, "search")[0].state == "finished"


def test_a_sweep_is_listed_before_its_first_trial(tmp_path: Path) -> None:
    made.sweep(tmp_path, planned={"low": 1e-4, "high": 1e-3})
    (entry,) = list_all([tmp_path])
    assert (entry.state, entry.trials, entry.best) == ("stopped", {"planned": 2}, None)


def test_runs_are_found_below_a_folder_and_trials_are_their_sweeps(tmp_path: Path) -> None:
    made.run(tmp_path, "first/run")
    made.sweep(tmp_path, "low", planned={"low": 1e-4, "high": 1e-3})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/config.yaml").write_text("name: mine\n")  # a config alone is no run
    assert {entry.name for entry in list_all([tmp_path])} == {"first/run", "search"}
    assert find("search/low", [tmp_path])[0] == tmp_path / "search/low"
    assert find(str(tmp_path / "first/run"), [tmp_path])[1] == "first/run"
    with pytest.raises(UsageError, match="Did you mean search"):
        find("serch", [tmp_path])
    with pytest.raises(UsageError, match="no such folder"):
        check_places([tmp_path / "gone"])


def test_a_damaged_file_costs_its_value_and_no_list(tmp_path: Path) -> None:
    folder = made.run(tmp_path)
    (folder / "config.yaml").write_text("name: [")
    (folder / "result.json").write_text("{")
    sweep = made.sweep(tmp_path, planned={"low": 1e-4, "high": 1e-3})
    with (sweep / "journal.jsonl").open("a") as journal:
        journal.write("not json\n")
    found = {entry.name: entry for entry in list_all([tmp_path])}
    assert (found["run"].step, found["run"].steps) == (4, None)
    assert found["search"].state == "failed"
    assert "damaged" in (found["search"].error or "")


def test_watch_shows_running_trials_with_their_speed_and_ended_runs(tmp_path: Path) -> None:
    made.finish(made.run(tmp_path, "done"))
    sweep = made.sweep(tmp_path, "one", "two", planned={"one": 0.001, "two": 0.002})
    made.end(sweep, "one", "finished")
    with Journal.open(sweep), checkpoint.command_lock(sweep / "two"):
        append_metrics(sweep / "two", 4, {"loss": 1.0, "steps_per_s": 2.5, "gpu_memory_gib": 3.0})
        now = look([tmp_path])
    assert [(each.entry.name, each.entry.state) for each in now] == [
        ("search", "running"), ("search/two", "running"), ("done", "finished"),
    ]  # fmt: skip
    sweep_now, trial, done = now
    assert (trial.steps_per_s, trial.images_per_s, trial.gpu_memory_gib) == (2.5, 10.0, 3.0)
    assert (sweep_now.steps_per_s, sweep_now.images_per_s) == (2.5, 10.0)
    assert (done.steps_per_s, done.train_psnr) == (None, None)


DAMAGED = {
    "nothing": b"",
    "zeros": bytes(40),
    "half": b'{"step": 4, "psnr_y"',
    "a list": b"[]\n",
    "a number": b"5\n",
    "no keys": b"{}\n",
    "of other types": b'{"checkpoint": 5, "metrics": 5, "steps": "x", "message": 5, "step": "4"}\n',
    "not UTF-8": b"\xff\xfe\n",
    "too deep": b"[" * 100_000,
}
OF_A_RUN = ("result.json", "metrics.jsonl", "commands.jsonl", "mlflow.json", "failure.json")


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_whatever_is_in_a_file_costs_no_list(tmp_path: Path, content: bytes) -> None:
    folder = made.run(tmp_path, psnr={4: 29.0})
    made.finish(folder)
    sweep = made.sweep(tmp_path, "low", planned={"low": 1e-4, "high": 1e-3})
    for name in OF_A_RUN:
        (folder / name).write_bytes(content)
    for name in ("sweep.json", "failure.json"):
        (sweep / name).write_bytes(content)
    (checkpoint.folder_of(folder, 4) / checkpoint.STATE).write_bytes(content)
    found = {entry.name: entry for entry in list_all([tmp_path])}
    assert {*found} == {"run", "search"}
    assert look([tmp_path])
    for name in found:
        shown = show(tmp_path / name, name)
        assert printed.shown(shown)
    assert compare([(folder, "run"), (sweep / "low", "low")])
    assert removable([tmp_path], tmp_path / "caches") == []


def test_a_sweep_that_has_not_started_a_trial_is_listed(tmp_path: Path) -> None:
    made.sweep(tmp_path, planned={"low": 1e-4, "high": 1e-3})
    (listed,) = list_all([tmp_path])
    assert (listed.state, listed.trials) == ("stopped", {"planned": 2})


def test_a_folder_that_may_not_be_searched_costs_no_list(tmp_path: Path) -> None:
    made.run(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o600)
    with unprivileged():
        assert [entry.name for entry in list_all([tmp_path])] == ["run"]
