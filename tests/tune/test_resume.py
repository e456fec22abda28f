"""A killed sweep resumes to the same results; its space may be extended but not changed."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.errors import UsageError
from derain.pipelines.train.run_folder import write_json
from derain.training import checkpoint
from derain.tune.dry_run import describe_resumed
from derain.tune.journal import JOURNAL, Journal, read
from derain.tune.results import SWEEP
from derain.tune.resume import config_to_resume, is_complete
from derain.tune.sweep import resume, sweep
from tests.processes import kill_group, wait_for

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
def interrupted(tiny: dict[str, Any], tmp_path: Path) -> Config:
    """The config of a sweep that was interrupted after its plan was written."""
    config = planned(tiny, tmp_path)
    config.folder.mkdir()
    (config.folder / checkpoint.CONFIG).write_text(config.to_yaml())
    with Journal.open(config.folder) as journal:
        journal.write("plan", version=1, name="search", ahead=4, manifests=[])
    return config


def test_a_sweep_continues_with_its_own_config(interrupted: Config) -> None:
    assert config_to_resume(interrupted.folder, None, {}) == interrupted
    faster = config_to_resume(interrupted.folder, None, {"sweep.concurrent": 4, "sweep.retries": 3})
    assert faster.sweep
    assert (faster.sweep.concurrent, faster.sweep.retries) == (4, 3)


def test_the_space_may_be_extended(interrupted: Config) -> None:
    more = interrupted.replaced(
        {"sweep.space": {"train.lr": {"grid": {**RATES, "more": 0.1}}}}, "test"
    )
    assert config_to_resume(interrupted.folder, more, {}).sweep == more.sweep


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sweep.space": {"train.lr": {"grid": {"low": 1e-4}}}}, "middle had .* now be missing"),
        (
            {"sweep.space": {"train.lr": {"grid": {**RATES, "low": 2e-4}}}},
            "low had .*now be .*0.0002",
        ),
        ({"train.steps": 8}, "another train.steps. The sweep has train.steps=4"),
        ({"sweep.metric": "ssim_y"}, "another sweep.metric"),
        ({"seed": 3, "loss.lambda_p": 0.5}, "another loss.lambda_p, seed"),
        ({"data.augment": "none", "data.seed": 7}, "another data.augment, data.seed"),
    ],
)
def test_a_change_to_a_trial_is_refused(
    interrupted: Config, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        config_to_resume(interrupted.folder, interrupted.replaced(changed, "test"), {})


def test_the_folders_of_the_data_are_kept(interrupted: Config) -> None:
    elsewhere = {"data.train": ["/nowhere"], "data.validation": ["/nowhere"], "data.cache_gib": 3.0}
    config = config_to_resume(interrupted.folder, interrupted.replaced(elsewhere, "test"), {})
    assert (config.data.train, config.data.cache_gib) == (interrupted.data.train, 3.0)


def test_a_finished_sweep_is_not_complete_with_another_published_table(interrupted: Config) -> None:
    with Journal.open(interrupted.folder) as journal:
        journal.write("finished", trials=3)
    assert not is_complete(interrupted), "the result is written last"
    write_json(interrupted.folder / SWEEP, {})
    assert is_complete(interrupted)
    table = {"source": "a table", "psnr_y": {"low": 30.0}, "ssim_y": {}}
    assert not is_complete(interrupted.replaced({"sweep.reference": table}, "test"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_of_a_resume_changes_nothing(interrupted: Config) -> None:
    with Journal.open(interrupted.folder) as journal:
        started = [{"name": name, "params": {"train.lr": rate}} for name, rate in RATES.items()]
        journal.write("started", key="low@4", trials=started[:1])
    before = contents(interrupted.folder)
    more = {"sweep.space": {"train.lr": {"grid": {**RATES, "more": 0.1}}}, "train.device": "cuda"}
    planned = describe_resumed("search", None, interrupted.output_dir, more)
    assert {trial["name"]: trial["state"] for trial in planned["trials"]} == {
        "low": "begun", "middle": "planned", "high": "planned", "more": "planned",
    }  # fmt: skip
    assert contents(interrupted.folder) == before


def test_a_finished_sweep_has_nothing_left_to_do(interrupted: Config) -> None:
    with Journal.open(interrupted.folder) as journal:
        journal.write("finished", trials=3)
    write_json(interrupted.folder / SWEEP, {})
    planned = describe_resumed("search", None, interrupted.output_dir, {})
    assert (planned["estimate"]["steps"], planned["warnings"]) == (0, [])


def test_a_folder_without_a_sweep_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep to resume"):
        config_to_resume(tmp_path / "gone", None, {})


def repeated(events: list[dict[str, Any]]) -> list[str]:
    """Keys of segments that were started again after they had ended."""
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
    wait_for(lambda: ended(config.folder), 240, process=process)
    kill_group(process)


def ended(folder: Path) -> list[str]:
    """Keys of the segments that have ended according to the journal."""
    return [e["key"] for e in read(folder) if e["event"] == "ended"]


@pytest.mark.soak
def test_a_killed_sweep_has_the_results_of_an_uninterrupted_one(
    tiny: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One kill, one trial added, and one trial at a time after it instead of two.

    `tests/soak/soak_sweeps.py` has twenty kills.
    """
    folder, other = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("uninterrupted")
    train = {"train.steps": 40, "train.checkpoint_every_steps": 5}
    more = {"sweep.space": {"train.lr": {"grid": {**RATES, "more": 5e-3}}}, "sweep.concurrent": 1}
    begun = planned(tiny, folder, **train)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    kill_when_a_trial_has_ended(begun)
    with pytest.raises(UsageError, match="started with other datasets"):
        resume("search", None, str(folder), {"data.validation": tiny["data"]["train"]})
    resumed = resume("search", planned(tiny, folder, **train, **more), str(folder), {})
    assert [trial["name"] for trial in resumed["trials"]] == [*RATES, "more"]
    assert sorted(set(ended(begun.folder))) == sorted(ended(begun.folder))
    assert not repeated(read(begun.folder))
    with sqlite3.connect(folder / "mlflow.db") as store:
        runs = store.execute("select name, status from runs where status != 'KILLED'").fetchall()
    names = ["search", "search/high", "search/low", "search/middle", "search/more"]
    assert sorted(runs) == [(name, "FINISHED") for name in names]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}/mlflow.db")
    uninterrupted = sweep(planned(tiny, other, **train, **more))
    assert [[t[key] for key in SAME] for t in resumed["trials"]] == [
        [t[key] for key in SAME] for t in uninterrupted["trials"]
    ]
    assert resumed["best"] == uninterrupted["best"]
    assert resume("search", None, str(other), {}) == json.loads(
        (other / "search" / "sweep.json").read_text()
    )
    assert len((other / "search" / JOURNAL).read_text().splitlines()) < 20

    table = {"source": "a table", "psnr_y": {"low": 12.34}, "ssim_y": {}}
    again = resume("search", None, str(other), {"sweep.reference": table})
    assert "12.34" in Path(again["report"]).read_text()
    assert not repeated(read(other / "search"))
