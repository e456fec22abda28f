"""A sweep without a checkpoint: the next start takes its place, and leaves all others alone."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from derain.config import Config
from derain.errors import OccupiedError
from derain.pipelines.train.run_folder import note_command
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store
from derain.tune.early import check_new, config_to_begin, remove_early
from derain.tune.journal import JOURNAL, Journal


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tree = {
        "name": "search",
        "output_dir": str(tmp_path / "runs"),
        "model": {"name": "prenet"},
        "train": {"steps": 4, "batch_size": 4},
        "sweep": {"space": {"train.lr": {"grid": {"low": 1e-4, "high": 1e-3}}}},
    }
    return Config.model_validate(tree)


def begin(config: Config, **recorded: str) -> None:
    """What a sweep has written when it dies before its first checkpoint."""
    (config.folder / "low").mkdir(parents=True)
    (config.folder / "low/mlflow.json").touch()
    (config.folder / "config.yaml").write_text(config.to_yaml())
    note_command(config.folder)
    with Journal.open(config.folder) as journal:
        journal.write("plan", version=1, name="search", ahead=4, manifests=[])
        if recorded:
            journal.write("recorded", **recorded)
        journal.write("started", key="low@4", trials=[{"name": "low", "params": {}}])


def test_what_died_early_is_removed_and_its_mlflow_runs_are_ended(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    prepare_store()
    with RunLog("search") as parent, RunLog("low", parent_run_id=parent.run_id) as child:
        died = [parent.run_id, child.run_id]
    client = MlflowClient(tracking_uri=uri)
    for run_id in died:
        client.update_run(run_id, status="RUNNING")
    begin(config, run_id=died[0])
    remove_early(config)
    assert not list(config.folder.iterdir())
    assert [client.get_run(run_id).info.status for run_id in died] == ["KILLED", "KILLED"]


def test_an_empty_journal_is_not_a_dead_end(config: Config) -> None:
    """Of a process that was killed between creating and writing it."""
    config.folder.mkdir(parents=True)
    (config.folder / JOURNAL).touch()
    assert config_to_begin("search", config) == config
    remove_early(config)
    assert not list(config.folder.iterdir())


def test_a_sweep_that_runs_or_has_a_checkpoint_is_left_alone(config: Config) -> None:
    begin(config)
    with Journal.open(config.folder), pytest.raises(OccupiedError, match="running this sweep"):
        remove_early(config)
    (config.folder / "low/checkpoints/step-00000002").mkdir(parents=True)
    with pytest.raises(OccupiedError, match=r"unfinished sweep\. Continue it with --resume search"):
        check_new(config)
    assert config_to_begin("search", config) is None
    assert (config.folder / JOURNAL).is_file()


def test_what_is_not_of_a_sweep_is_left_alone(config: Config) -> None:
    begin(config)
    (config.folder / "notes.txt").touch()
    with pytest.raises(OccupiedError, match=r"notes\.txt, which is not of a sweep"):
        remove_early(config)
    (config.folder / JOURNAL).unlink()
    with pytest.raises(OccupiedError, match="something that is not a sweep"):
        check_new(config)


def test_without_a_config_nothing_begins(config: Config) -> None:
    assert config_to_begin("search", None) is None
    begun = config_to_begin("other", config)
    assert begun is not None
    assert begun.name == "other"
