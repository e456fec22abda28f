"""The folder of a run: one that is in use is left alone, locally and at the upload target."""

from pathlib import Path
from typing import Any

import pytest

from derain.errors import OccupiedError
from derain.pipelines.train.run_folder import claim
from derain.pipelines.train.verb import train


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


def test_uploads_do_not_go_to_the_place_of_another_run(trained: Any, tmp_path: Path) -> None:
    values = {"output_dir": str(tmp_path / "runs"), "train.upload_to": str(tmp_path / "remote")}
    config = trained.config.replaced(values, "test")
    claim(config)
    (tmp_path / "remote/one/checkpoints").mkdir(parents=True)
    with pytest.raises(OccupiedError, match=r"remote/one: .*already holds.*--resume one"):
        claim(config)
