"""The folder of a run: one that is in use is left alone, locally and at the upload target."""

from pathlib import Path
from typing import Any

import pytest

from derain.errors import OccupiedError, UsageError
from derain.pipelines.train.run_folder import claim, clear, note_command, noting_failure
from derain.pipelines.train.verb import train


def test_an_occupied_folder_is_left_alone(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(OccupiedError, match="--resume one"):
        train(trained.config)
    new = trained.config.replaced({"output_dir": str(tmp_path), "name": "team/new"}, "test")
    claim(new)
    (new.folder / "checkpoints/step-00000001").mkdir(parents=True)
    with pytest.raises(OccupiedError, match=r"unfinished run.*--resume team/new"):
        claim(new)
    (new.folder / "checkpoints").rename(new.folder / "something")
    with pytest.raises(OccupiedError, match="not empty, and something is not of a run"):
        claim(new)
    (new.folder / "something/step-00000001").rmdir()
    (new.folder / "something").rmdir()
    (new.folder / "something").touch()
    with pytest.raises(OccupiedError, match="something is a file"):
        claim(new.replaced({"name": "team/new/something"}, "test"))


def early(folder: Path, *, config: bool = True) -> None:
    """What a run has written when it dies before its first checkpoint."""
    for name in (".lock", "mlflow.json", "metrics.jsonl", "ledger.rank-001.jsonl"):
        (folder / name).touch()
    note_command(folder)
    with pytest.raises(UsageError), noting_failure(folder):
        raise UsageError("no GPU here")
    for name in ("ray/train", "tracking", "checkpoints/.step-00000020.1.tmp"):
        (folder / name).mkdir(parents=True)
    if config:
        (folder / "config.yaml").touch()


@pytest.mark.parametrize("config", [True, False])
def test_a_run_that_came_to_no_checkpoint_does_not_use_up_its_name(
    trained: Any, tmp_path: Path, config: bool
) -> None:
    new = trained.config.replaced({"output_dir": str(tmp_path), "name": "early"}, "test")
    claim(new)
    early(new.folder, config=config)
    claim(new)
    clear(new.folder)
    assert [path.name for path in new.folder.iterdir()] == [".lock"]


def test_a_config_without_a_run_is_left_alone(trained: Any, tmp_path: Path) -> None:
    new = trained.config.replaced({"output_dir": str(tmp_path), "name": "mine"}, "test")
    claim(new)
    (new.folder / "config.yaml").touch()  # of an experiment that somebody prepares by hand
    with pytest.raises(OccupiedError, match=r"config\.yaml is not of a run"):
        claim(new)
    early(new.folder)
    (new.folder / "checkpoints/mine").mkdir()  # a copy that somebody keeps
    with pytest.raises(OccupiedError, match="checkpoints/mine is not of a run"):
        claim(new)


def test_uploads_do_not_go_to_the_place_of_another_run(trained: Any, tmp_path: Path) -> None:
    values = {"output_dir": str(tmp_path / "runs"), "train.upload_to": str(tmp_path / "remote")}
    config = trained.config.replaced(values, "test")
    claim(config)
    uploaded = tmp_path / "remote/one/checkpoints/step-00000004"
    uploaded.mkdir(parents=True)
    claim(config)  # the upload was cut short
    (uploaded / "state.json").touch()
    with pytest.raises(OccupiedError, match=r"remote/one: .*already holds.*--resume one"):
        claim(config)
