"""A run in this process, without Ray Train."""

import shutil
from pathlib import Path
from typing import Any

import torch

from derain.config import Config
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.run import run_in_this_process
from derain.pipelines.train.run_folder import RESULT, read_json
from derain.training import checkpoint
from derain.training.process.distributed import Rank


def test_experts_start_from_a_network_trained_for_all_images(
    tiny: dict[str, Any], tmp_path: Path, store: str
) -> None:
    """A resumed run continues from its own checkpoint, even if the first one is gone."""
    experts = {"widths": [8, 8], "depths": [1, 1], "heads": [1, 1], "mgca": ["none"]}
    model = {"name": "clip_rpn", "routing": "single", **experts}
    tree = {**tiny, "name": "shared", "model": model, "output_dir": str(tmp_path)}
    shared = Config.model_validate(tree).replaced({"train.steps": 2}, "test")
    run_in_this_process(shared, TrackingTarget(store), Rank())
    first = read_json(shared.folder / RESULT)["checkpoint"]
    trained = checkpoint.load(first).model()

    values = {"model.routing": "random", "train.start_from": first, "train.lr": 1e-12}
    values |= {"name": "experts", "train.steps": 1, "train.weight_decay": 0.0}
    config = shared.replaced(values, "test")
    run_in_this_process(config, TrackingTarget(store), Rank())
    found = checkpoint.load(read_json(config.folder / RESULT)["checkpoint"]).model()
    assert len(found) == 3 * len(trained)
    for name, tensor in found.items():
        one = trained[f"experts.0.{name.split('.', 2)[2]}"]
        torch.testing.assert_close(tensor, one, rtol=1e-6, atol=1e-9)

    shutil.rmtree(shared.folder)
    run_in_this_process(config.replaced({"train.steps": 2}, "test"), TrackingTarget(store), Rank())
    assert read_json(config.folder / RESULT)["resumed_from_step"] == 1
