"""A run in this process, without Ray Train."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from derain.config import Config
from derain.data.loading.loader import Loader
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.run import run_cohort_in_this_process, run_in_this_process
from derain.pipelines.train.run_folder import IDENTITY, RESULT, read_json
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


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("the disk went away"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
@pytest.mark.parametrize("cohort", [False, True])
def test_what_ends_the_loader_is_how_the_run_ended(
    tiny: dict[str, Any],
    tmp_path: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: str,
    cohort: bool,
) -> None:
    write_crops = Loader.write_crops

    def fails_in_the_third_step(self: Loader, plan: Any, out: Any) -> None:
        if plan.following.step > 2:
            raise error
        write_crops(self, plan, out)

    monkeypatch.setattr(Loader, "write_crops", fails_in_the_third_step)
    tree = {**tiny, "name": "one", "output_dir": str(tmp_path)}
    config = Config.model_validate(tree).replaced({"data.loader_processes": 0}, "test")
    target = TrackingTarget(store)
    with pytest.raises(type(error)):
        run_cohort_in_this_process([config], target) if cohort else run_in_this_process(
            config, target, Rank()
        )
    run_id = read_json(config.folder / IDENTITY)["run_id"]
    assert MlflowClient(tracking_uri=store).get_run(run_id).info.status == status


def test_the_first_step_waits_for_its_own_samples_only(
    tiny: dict[str, Any], tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache has its name once all images of its dataset are in it."""
    cold, complete = tmp_path / "caches", []
    write_crops = Loader.write_crops

    def look(self: Loader, plan: Any, out: Any) -> None:
        complete.append([path.name for path in cold.glob("*.rgb")])
        write_crops(self, plan, out)

    monkeypatch.setattr(Loader, "write_crops", look)
    tree = {**tiny, "name": "cold", "output_dir": str(tmp_path)}
    values = {"data.cache_dir": str(cold), "data.loader_processes": 0, "train.steps": 1}
    config = Config.model_validate(tree).replaced(values, "test")
    run_in_this_process(config, TrackingTarget(store), Rank())
    assert complete == [[]]
