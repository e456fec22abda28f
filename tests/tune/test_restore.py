"""A sweep that was killed ends with what it would have had; another space is refused or added."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.errors import UsageError
from derain.pipelines.train.run import write_json
from derain.training import checkpoint
from derain.tune.journal import JOURNAL, Journal, read
from derain.tune.restore import config_to_resume, is_whole
from derain.tune.sweep import SWEEP, describe_resumed, resume, sweep

RATES = {"low": 1e-4, "middle": 1e-3, "high": 1e-2}
SAME = ("name", "status", "seed", "metrics", "input", "loss", "weights_sha256", "steps")


def planned(tiny: dict[str, Any], folder: Path, **values: Any) -> Config:
    tree = {
        **tiny,
        "name": "search",
        "output_dir": str(folder),
        "sweep": {"space": {"train.lr": {"grid": RATES}}, "concurrent": 2},
    }
    return Config.model_validate(tree).replaced(values, "test")


@pytest.fixture
def left(tiny: dict[str, Any], tmp_path: Path) -> Config:
    """The config of a sweep that was left after its plan was written."""
    config = planned(tiny, tmp_path)
    config.folder.mkdir()
    (config.folder / checkpoint.CONFIG).write_text(config.to_yaml())
    with Journal.open(config.folder) as journal:
        journal.write("plan", version=1, name="search", ahead=4, manifests=[])
    return config


def test_a_sweep_goes_on_with_its_own_config(left: Config) -> None:
    assert config_to_resume(left.folder, None, {}) == left
    faster = config_to_resume(left.folder, None, {"sweep.concurrent": 4, "sweep.retries": 3})
    assert faster.sweep
    assert (faster.sweep.concurrent, faster.sweep.retries) == (4, 3)


def test_the_space_may_grow(left: Config) -> None:
    more = left.replaced({"sweep.space": {"train.lr": {"grid": {**RATES, "more": 0.1}}}}, "test")
    assert config_to_resume(left.folder, more, {}).sweep == more.sweep


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sweep.space": {"train.lr": {"grid": {"low": 1e-4}}}}, "middle was .* no such trial"),
        ({"sweep.space": {"train.lr": {"grid": {**RATES, "low": 2e-4}}}}, "low was .*0.0002"),
        ({"train.steps": 8}, "another train.steps. The sweep has train.steps=4"),
        ({"sweep.metric": "ssim_y"}, "another sweep.metric"),
        ({"seed": 3, "loss.lambda_p": 0.5}, "another loss.lambda_p, seed"),
        ({"data.augment": "none", "data.seed": 7}, "another data.augment, data.seed"),
    ],
)
def test_what_would_change_a_trial_is_refused(
    left: Config, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        config_to_resume(left.folder, left.replaced(changed, "test"), {})


def test_where_the_data_lies_is_the_sweeps_own(left: Config) -> None:
    elsewhere = {"data.train": ["/nowhere"], "data.eval": ["/nowhere"], "data.cache_gib": 3.0}
    config = config_to_resume(left.folder, left.replaced(elsewhere, "test"), {})
    assert (config.data.train, config.data.cache_gib) == (left.data.train, 3.0)


def test_an_ended_sweep_is_not_whole_with_another_published_table(left: Config) -> None:
    with Journal.open(left.folder) as journal:
        journal.write("finished", trials=3)
    assert is_whole(left)
    table = {"source": "a table", "psnr_y": {"low": 30.0}, "ssim_y": {}}
    assert not is_whole(left.replaced({"sweep.reference": table}, "test"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_resuming_would_do_is_shown_without_doing_it(left: Config) -> None:
    with Journal.open(left.folder) as journal:
        started = [{"name": name, "params": {"train.lr": rate}} for name, rate in RATES.items()]
        journal.write("started", key="low@4", trials=started[:1])
    before = contents(left.folder)
    more = {"sweep.space": {"train.lr": {"grid": {**RATES, "more": 0.1}}}, "train.device": "cuda"}
    planned = describe_resumed("search", None, left.output_dir, more)
    assert {trial["name"]: trial["state"] for trial in planned["trials"]} == {
        "low": "begun", "middle": "planned", "high": "planned", "more": "planned",
    }  # fmt: skip
    assert contents(left.folder) == before


def test_of_an_ended_sweep_nothing_is_left(left: Config) -> None:
    with Journal.open(left.folder) as journal:
        journal.write("finished", trials=3)
    write_json(left.folder / SWEEP, {})
    planned = describe_resumed("search", None, left.output_dir, {})
    assert (planned["estimate"]["steps"], planned["warnings"]) == (0, [])


def test_without_a_sweep_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep to resume"):
        config_to_resume(tmp_path / "gone", None, {})


def run_again(events: list[dict[str, Any]]) -> list[str]:
    """Keys of segments that were started after they had ended."""
    ended: set[str] = set()
    found = []
    for event in events:
        if event["event"] == "ended":
            ended.add(event["key"])
        elif event["event"] == "started" and event["key"] in ended:
            found.append(event["key"])
    return found


def kill_when_a_trial_has_ended(config: Config) -> None:
    """Start `derainctl sweep` in its folder, and SIGKILL its whole process group."""
    place = Path(config.output_dir)
    (place / "search.yaml").write_text(config.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-m", "derain.cli", "sweep", "search.yaml", "--json"],
        cwd=place,
        env={**os.environ, "RAY_ADDRESS": "", "DERAIN_CACHE_DIR": str(place / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not ended(config.folder):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ended(folder: Path) -> list[str]:
    """Keys of the segments that the journal says are done."""
    return [e["key"] for e in read(folder) if e["event"] == "ended"]


def test_a_killed_sweep_ends_as_the_unbroken_one(
    tiny: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One kill, and one trial more; `tests/soak/soak_sweeps.py` has twenty kills."""
    folder, other = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("unbroken")
    train = {"train.steps": 40, "train.checkpoint_every_steps": 5}
    more = {"sweep.space": {"train.lr": {"grid": {**RATES, "more": 5e-3}}}}
    begun = planned(tiny, folder, **train)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    kill_when_a_trial_has_ended(begun)
    with pytest.raises(UsageError, match="began with other datasets"):
        resume("search", None, str(folder), {"data.eval": tiny["data"]["train"]})
    broken = resume("search", planned(tiny, folder, **train, **more), str(folder), {})
    assert [trial["name"] for trial in broken["trials"]] == [*RATES, "more"]
    assert sorted(set(ended(begun.folder))) == sorted(ended(begun.folder))
    assert not run_again(read(begun.folder))
    with sqlite3.connect(folder / "mlflow.db") as store:
        runs = store.execute("select name, status from runs where status != 'KILLED'").fetchall()
    names = ["search", "search/high", "search/low", "search/middle", "search/more"]
    assert sorted(runs) == [(name, "FINISHED") for name in names]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}/mlflow.db")
    unbroken = sweep(planned(tiny, other, **train, **more))
    assert [[t[key] for key in SAME] for t in broken["trials"]] == [
        [t[key] for key in SAME] for t in unbroken["trials"]
    ]
    assert broken["best"] == unbroken["best"]
    assert resume("search", None, str(other), {}) == json.loads(
        (other / "search" / "sweep.json").read_text()
    )
    assert len((other / "search" / JOURNAL).read_text().splitlines()) < 20

    table = {"source": "a table", "psnr_y": {"low": 12.34}, "ssim_y": {}}
    again = resume("search", None, str(other), {"sweep.reference": table})
    assert "12.34" in Path(again["report"]).read_text()
    assert not run_again(read(other / "search"))
