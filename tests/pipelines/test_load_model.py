"""MODEL on the command line: every way to name a model loads the same network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derain.errors import UsageError, WeightsError
from derain.inference.exported import export as export_file
from derain.inference.predictor import (
    Predictor,
    _load_pyfunc,
    load_model_folder,
    save_model_folder,
)
from derain.models import build
from derain.pipelines.export import export
from derain.pipelines.load_model import load_network, load_predictor
from derain.pipelines.register.verb import register

PLUGIN = """
from torch import nn

class Shift(nn.Module):
    def __init__(self, by=0.0):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.by = by

    def forward(self, x):
        return self.layer(x) + self.by
"""


def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)


def test_checkpoint_folder_and_registered_version_are_the_same_network(
    trained: Any, tmp_path: Path
) -> None:
    saved = trained.result["checkpoint"]
    folder = export(saved, tmp_path / "folder", "folder")
    version = register(saved, "loaded")
    expected = load_predictor(saved, "cpu").derain(image())
    options = json.loads(json.dumps(trained.config.model.model_dump(exclude={"name"})))
    for model in (saved, str(folder), version.uri, "models:/loaded@champion"):
        loaded = load_network(model)
        assert loaded.name == trained.config.model.name
        assert json.loads(json.dumps(loaded.options)) == options  # a tuple is a list on disk
        assert np.array_equal(Predictor(loaded.network).derain(image()), expected)
        assert np.array_equal(load_predictor(model, "cpu").derain(image()), expected)


def test_an_exported_file_runs_on_the_cpu_and_may_need_trust(tmp_path: Path) -> None:
    network = build("nafnet", width=8, encoder_blocks=[1], decoder_blocks=[1], middle_blocks=1)
    file = str(export_file(network, tmp_path / "net.pt2", "torch-export"))
    derained = load_predictor(file, trust=True).derain(image())
    assert np.abs(derained.astype(int) - Predictor(network).derain(image())).max() <= 1
    with pytest.raises(UsageError, match="--trust"):
        load_predictor(file)
    with pytest.raises(UsageError, match="cuda"):
        load_predictor(file, "cuda", trust=True)


def test_a_user_defined_class_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    network = build("my_nets:Shift", by=0.25)
    assert network.stride == 1
    folder = save_model_folder(network, tmp_path / "model", "my_nets:Shift", {"by": 0.25})
    for load in (load_model_folder, load_network, load_predictor):
        with pytest.raises(UsageError, match=r"class my_nets:Shift.*--trust"):
            load(str(folder))
    derained = load_predictor(str(folder), "cpu", trust=True).derain(image())
    assert np.array_equal(derained, Predictor(network).derain(image()))
    served = _load_pyfunc(str(folder)).predict(image()[None])  # MLflow has trusted it by then
    assert np.array_equal(served[0], derained)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    for load in (load_network, load_predictor):
        with pytest.raises(WeightsError, match=str(tmp_path)):
            load(str(tmp_path))
        with pytest.raises(WeightsError, match="nowhere"):
            load(str(tmp_path / "nowhere"))
