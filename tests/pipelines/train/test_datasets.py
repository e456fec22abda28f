"""The datasets of a config: synthetic ones are rendered once, missing ones are refused."""

import logging
from pathlib import Path

import pytest

from derain.config import Config
from derain.data.prepared.manifest import open_prepared
from derain.errors import ConfigError, DataError
from derain.pipelines.train.datasets import with_data


@pytest.mark.usefixtures("ray_cluster")
def test_synthetic_data_is_rendered_once(
    tiny: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    synthetic = {"train_pairs": 2, "validation_pairs": 1, "test_pairs": 1, "size_px": 32}
    tree = {**tiny, "data": {"synthetic": synthetic}, "output_dir": str(tmp_path)}
    first = with_data(Config.model_validate(tree))
    assert "reusing" not in caplog.text
    second = with_data(Config.model_validate(tree))
    assert caplog.text.count("reusing") == 3
    assert first == second
    roles = (first.data.train, first.data.validation, first.data.test)
    assert [len(open_prepared(*folders)) for folders in roles] == [2, 1, 1]


def test_a_config_without_data_is_refused_with_advice(tiny: dict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="derainctl prepare"):
        with_data(Config.model_validate({**tiny, "data": {}}))
    gone = {"train": str(tmp_path / "gone"), "validation": str(tmp_path / "gone")}
    with pytest.raises(DataError, match="derainctl prepare"):
        with_data(Config.model_validate({**tiny, "data": gone}))
