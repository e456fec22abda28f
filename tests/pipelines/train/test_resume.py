"""Resuming: the run keeps its own config; what would change the training is refused."""

from pathlib import Path
from typing import Any

import pytest

from derain.errors import UsageError
from derain.pipelines.train.resume import config_to_resume
from derain.pipelines.train.verb import resume


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train.lr": 1e-4}, "train.lr"),
        ({"train.batch_size": 2}, "train.batch_size"),
        ({"model.output": "direct"}, "model.output"),
        ({"eval.protocol": "five_set"}, "eval.protocol"),
        ({"seed": 7}, "data.seed, seed"),
    ],
)
def test_a_run_is_not_resumed_with_other_training(
    trained: Any, changed: dict[str, Any], named: str
) -> None:
    before = sorted(trained.config.folder.rglob("*"))
    with pytest.raises(UsageError, match=f"another {named}"):
        resume(config_to_resume(trained.config, "one", {**changed, "train.steps": 6}))
    assert sorted(trained.config.folder.rglob("*")) == before


def test_a_run_without_a_checkpoint_begins_with_the_config_that_is_given(
    trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a batch system starts the same command again, or a wrong value was mended."""
    caplog.set_level("INFO")
    mended = trained.config.replaced({"output_dir": str(tmp_path), "train.lr": 5e-4}, "test")
    expected = mended.replaced({"name": "early"}, "test")
    assert config_to_resume(mended, "early", {}) == expected
    (tmp_path / "early").mkdir()
    (tmp_path / "early/mlflow.json").touch()
    (tmp_path / "early/config.yaml").write_text(trained.config.to_yaml())
    assert config_to_resume(mended, "early", {}) == expected
    assert "early holds no checkpoint yet, so the run begins" in caplog.text


def test_a_run_that_lost_its_config_is_named(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "one/checkpoints/step-00000004").mkdir(parents=True)
    moved = trained.config.replaced({"output_dir": str(tmp_path)}, "test")
    with pytest.raises(UsageError, match=r"one: has checkpoints, but no config\.yaml"):
        config_to_resume(moved, "one", {})


def test_ignored_values_of_the_file_are_logged(
    trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    edited = trained.config.replaced({"train.lr": 5e-4, "train.steps": 9}, "test")
    resumed = config_to_resume(edited, "one", {"train.steps": 9})
    assert (resumed.train.lr, resumed.train.steps) == (1e-3, 9)
    assert "train.lr: the run continues with 0.001; 0.0005 in the file is ignored" in caplog.text
    assert "train.steps" not in caplog.text
    caplog.clear()
    made = edited.replaced({"data.train": [], "data.validation": [], "train.lr": 1e-3}, "test")
    config_to_resume(made, "one", {"train.steps": 9})
    assert "is ignored" not in caplog.text  # its datasets were rendered, and noted in the run
