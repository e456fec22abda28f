"""A run's folder is a MODEL: its chosen checkpoint, RUN/best, RUN/last; a sweep's is its best."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from derain.errors import UsageError
from derain.pipelines.load_model import load_network
from derain.pipelines.named.checkpoint_of import checkpoint_of
from derain.pipelines.named.config_of import config_of
from derain.tracking.runs import RunLog


def test_a_finished_run_stands_for_its_chosen_checkpoint(trained: Any, tmp_path: Path) -> None:
    run, chosen = trained.config.folder, Path(trained.result["checkpoint"])
    assert checkpoint_of(run) == checkpoint_of(chosen) == checkpoint_of(run / "last") == chosen
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert checkpoint_of(moved) == moved / "checkpoints" / chosen.name
    assert load_network(str(moved)).name == trained.config.model.name
    with pytest.raises(UsageError, match="eval_every_steps"):
        checkpoint_of(run / "best")


def test_a_sweep_stands_for_its_best_trial(trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained.config.folder, tmp_path / "sweep" / "low")
    result = {"best": "low", "trials": [{"name": "high"}, {"name": "low"}]}
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(result))
    found = checkpoint_of(tmp_path / "sweep")
    assert found is not None
    assert found.parents[1] == tmp_path / "sweep" / "low"


def test_other_folders_are_none(tmp_path: Path) -> None:
    assert checkpoint_of(tmp_path) is None
    (tmp_path / "config.yaml").write_text("name: a\n")
    with pytest.raises(UsageError, match="no complete checkpoint yet"):
        checkpoint_of(tmp_path)


def test_the_config_of_a_run_is_read_from_its_folder_or_from_mlflow(
    trained: Any, store: str
) -> None:
    run_id = trained.result["mlflow_run_id"]
    with RunLog("again", uri=store, run_id=run_id) as record:
        assert record.flush()
    resolved = config_of(str(trained.config.folder))
    assert config_of(f"runs:/{run_id}") == resolved
    assert config_of(f"{trained.config.folder}/last") == resolved
    assert config_of("fclip_unet").name == "fclip-unet"
    with pytest.raises(UsageError, match="derainctl models"):
        config_of("models:/none/1")
