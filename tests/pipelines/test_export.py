"""`export` writes models as files, `import` makes model folders of published weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from derain.config import Config
from derain.errors import ConfigError, UsageError, WeightsError
from derain.inference.predictor import Predictor
from derain.models import build
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.export import export, import_weights
from derain.pipelines.load_model import load_predictor
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.run import run_in_this_process
from derain.pipelines.train.run_folder import RESULT, read_json
from derain.training.process.distributed import Rank

SMALL = {"width": 8, "encoder_blocks": [1, 1], "decoder_blocks": [1, 1], "middle_blocks": 1}


def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)


def test_checkpoints_and_folders_can_be_exported(
    trained: Any, rain_datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    saved, held_out = trained.result["checkpoint"], [str(rain_datasets[1])]
    folder = export(saved, tmp_path / "folder", "folder")
    again = export(str(folder), tmp_path / "again", "folder")
    file = export(str(folder), tmp_path / "net.pt2")  # the ending says which format
    psnrs = [
        evaluate(str(model), held_out, trust=True)["datasets"][0]["metrics"]["psnr_y"]
        for model in (saved, folder, again, file)
    ]
    assert psnrs == [pytest.approx(trained.result["metrics"]["psnr_y"], abs=1e-3)] * 4
    with pytest.raises(UsageError, match="--trust"):
        evaluate(str(file), held_out)
    with pytest.raises(UsageError, match=r"ends in .*onnx or .*pt2, or that of a folder"):
        export(saved, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"--format is one of.*torchscript"):
        export(saved, tmp_path / "other", "torchscript")


def test_published_weights_become_a_model_folder(tmp_path: Path) -> None:
    """As NAFNet's authors save them: the state dict under `params`."""
    network = build("nafnet", **SMALL)
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    folder, _ = import_weights(tmp_path / "net.pth", tmp_path / "model", "nafnet", SMALL)
    expected = Predictor(network).derain(image())
    assert np.array_equal(load_predictor(str(folder), "cpu").derain(image()), expected)


def test_unknown_weights_are_refused(tmp_path: Path) -> None:
    torch.save(build("nafnet", **SMALL).state_dict(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"csdwren/PReNet.*SHA-256"):
        import_weights(tmp_path / "net.pth", tmp_path / "model")
    with pytest.raises(WeightsError, match="do not fit the network"):
        import_weights(tmp_path / "net.pth", tmp_path / "model", "nafnet", {"width": 16})
    with pytest.raises(ConfigError, match="widht"):
        import_weights(tmp_path / "net.pth", tmp_path / "model", "nafnet", {"widht": 8})
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match=r"empty\.pth.*found something else"):
        import_weights(tmp_path / "empty.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_user_defined_class_is_trained_scored_and_exported(
    tiny: dict[str, Any], rain_datasets: tuple[Path, Path], tmp_path: Path, store: str
) -> None:
    """A convolution of torchvision, trained in this process; Ray workers import it the same way."""
    options = {"in_channels": 3, "out_channels": 3, "norm_layer": None, "activation_layer": None}
    model = {"name": "torchvision.ops:Conv2dNormActivation", **options}
    tree = {**tiny, "name": "plugin", "model": model, "output_dir": str(tmp_path)}
    config = Config.model_validate(tree)
    run_in_this_process(config, TrackingTarget(store), Rank())
    result = read_json(config.folder / RESULT)
    assert result["steps"] == tiny["train"]["steps"]
    assert result["loss"]["last"] < result["loss"]["first"]
    saved, held_out = result["checkpoint"], [str(rain_datasets[1])]
    with pytest.raises(UsageError, match=r"class torchvision\.ops:Conv.*--trust"):
        evaluate(saved, held_out)
    file = export(saved, tmp_path / "net.onnx", "onnx", trust=True)
    for model in (saved, str(file)):
        (scores,) = evaluate(model, held_out, trust=model == saved)["datasets"]
        assert scores["metrics"]["psnr_y"] == pytest.approx(result["metrics"]["psnr_y"], abs=1e-3)
