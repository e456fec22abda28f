"""Jobs on a real cluster: what they carry, print and return, and how they end."""

import json
import signal
from pathlib import Path

import pytest
import yaml

from derain.errors import UsageError
from derain.pipelines.jobs import verb
from derain.pipelines.jobs.follow import Sorted
from tests.pipelines.jobs.conftest import Head
from tests.processes import wait_for
from tests.tiny import NETWORK, TRAIN

pytestmark = pytest.mark.xdist_group("ray")

LONG = {
    "name": "long",
    "model": NETWORK,
    "data": {"synthetic": {"train_pairs": 4, "validation_pairs": 2, "test_pairs": 2}},
    "train": {**TRAIN, "steps": 100_000, "checkpoint_every_steps": 50_000},
    "loss": {"perceptual": "none"},
}


@pytest.mark.soak
def test_a_job_runs_in_this_folder_and_returns_results_and_exit_code(
    head: Head, tmp_path: Path
) -> None:
    """Its results come on stdout alone, as those of the command itself."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**LONG, "name": "mine"}))
    done = head.run("submit", "--", "derainctl", "config", "own.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["name"] == "mine"
    assert f"job: running in {tmp_path}\n" in done.stderr
    failed = head.run("submit", "--", "config", "own.yaml", "--set", "train.lr=0", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "train.lr" in failed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


@pytest.mark.soak
def test_a_job_from_a_folder_that_the_head_lacks_runs_in_a_copy(head: Head, tmp_path: Path) -> None:
    """In a folder without write permission there is no mark, so that the job cannot know it."""
    config = tmp_path / "outside.yaml"
    config.write_text(yaml.safe_dump({**LONG, "name": "carried"}))
    done = head.run("submit", "--", "config", str(config), "--json", cwd=Path("/proc"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["name"] == "carried"
    assert "job: running in " in done.stderr
    assert "working_dir_files" in done.stderr


@pytest.mark.soak
def test_stop_lets_a_run_save_and_it_goes_on_from_there(head: Head, tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(LONG))
    started = head.run("submit", "--detach", "--", "train", "long.yaml", cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    job = started.stdout.strip()
    metrics = tmp_path / "runs" / "long" / "metrics.jsonl"
    with head.start("logs", job, "--follow", cwd=tmp_path) as follower:
        wait_for(metrics.is_file, 200)
        listed = json.loads(head.run("status", "--json", cwd=tmp_path).stdout)["jobs"]
        assert [(j["status"], j["command"]) for j in listed if j["id"] == job] == [
            ("running", "train long.yaml")
        ]
        stopped = head.run("stop", job, cwd=tmp_path)
        assert (stopped.returncode, stopped.stdout) == (0, f"{job}: stopped\n"), stopped.stderr
        _, messages = follower.communicate(timeout=60)
    assert follower.returncode == 143
    assert "job: running in" in messages
    assert list((tmp_path / "runs" / "long").glob("checkpoints/*")), messages


@pytest.mark.soak
def test_ctrl_c_leaves_the_job_alone(head: Head, tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(LONG))
    before = _jobs(head, tmp_path)
    with head.start("submit", "--", "train", "long.yaml", cwd=tmp_path) as process:
        wait_for((tmp_path / "runs").is_dir, 200, process=process)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    (job,) = _jobs(head, tmp_path) - before
    assert f"job {job} goes on: `derainctl logs {job} --follow`" in messages
    assert head.run("stop", job, cwd=tmp_path).stdout == f"{job}: stopped\n"


def _jobs(head: Head, folder: Path) -> set[str]:
    listed = json.loads(head.run("status", "--json", cwd=folder).stdout)["jobs"]
    return {job["id"] for job in listed}


@pytest.mark.soak
def test_unknown_jobs_and_commands_are_named(head: Head, tmp_path: Path) -> None:
    for words in (("logs", "nobody"), ("stop", "nobody"), ("status", "nobody")):
        done = head.run(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "nobody: this cluster has no such job" in done.stderr
    done = head.run("submit", "--", "trian", "x.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "trian: not a command for a job. Expected one of synthesize" in done.stderr


def test_no_secret_goes_into_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(verb.STORE, "postgresql://me:hidden@db/mlflow")
    for names in ([], ["AWS_SECRET_ACCESS_KEY=x"], ["HF_TOKEN=x"]):
        with pytest.raises(UsageError, match="looks like a secret") as caught:
            verb._variables(names)
        assert "hidden" not in str(caught.value)
        monkeypatch.delenv(verb.STORE, raising=False)
    monkeypatch.setenv(verb.STORE, "http://mlflow:5000")
    monkeypatch.setenv("MINE", "a=b")
    assert verb._variables(["MINE", "OTHER="]) == [
        "MLFLOW_TRACKING_URI=http://mlflow:5000", "MINE=a=b", "OTHER=",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="--env ABSENT: not set here"):
        verb._variables(["ABSENT"])


def test_results_and_messages_are_told_apart_however_the_log_is_cut() -> None:
    log = 'job: running\n\x1e{"a":\nstep 1\n\x1e1}\nend'
    for size in (1, 3, 1000):
        results: list[str] = []
        messages: list[str] = []
        lines = Sorted(results.append, messages.append)
        for start in range(0, len(log), size):
            lines.add(log[start : start + size])
        lines.end()
        assert "".join(results) == '{"a":\n1}\n'
        assert "".join(messages) == "job: running\nstep 1\nend"
