"""`register`: a checkpoint becomes a model version, with the scores that its run has measured."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from derain.data.prepared.roles import open_training
from derain.errors import UsageError, WeightsError
from derain.inference.predictor import save_model_folder
from derain.models.cost import cost
from derain.pipelines.evaluate.training_data import trained_on
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.load_model import load_network
from derain.pipelines.register import versions
from derain.pipelines.register.after_training import with_registration
from derain.pipelines.register.verb import register
from derain.pipelines.train.run_folder import RESULT
from derain.tracking import champions, registry


def test_a_version_carries_scores_and_lineage(trained: Any) -> None:
    folder = trained.result["checkpoint"]
    first, second = register(folder, "registered"), register(folder, "registered")
    assert (first.version, first.alias) == (1, "champion")
    assert (second.version, second.alias) == (2, "challenger")
    listed = {v.version: v for v in registry.models() if v.name == "registered"}
    tags = listed[1].tags
    assert float(tags["psnr_y"]) == trained.result["metrics"]["psnr_y"]
    assert float(tags["input_psnr_y"]) == trained.result["input"]["psnr_y"]
    assert tags["weights_sha256"] == trained.result["weights_sha256"]
    assert tags["eval_manifest_sha256"] == trained.result["datasets"][0]["manifest_sha256"]
    assert listed[1].run_id == trained.result["mlflow_run_id"]
    network = load_network(first.uri).network
    sizes = [(p.requires_grad, p.numel()) for p in network.parameters()]
    assert int(tags["trained_parameters"]) + int(tags["frozen_parameters"]) == sum(
        size for _, size in sizes
    )
    assert int(tags["macs"]) == cost(network).macs > 0
    assert float(tags["train_seconds"]) == trained.result["train_seconds"]
    (rain,) = open_training(trained.config.data)
    stated = {"dataset": "paired", "split": rain.manifest.split, "pairs": len(rain)}
    assert trained_on(first.uri) == trained_on(folder) == [stated]
    assert trained_on(str(trained.config.folder)) == trained_on(f"{trained.config.folder}/last")
    assert trained_on(str(trained.config.folder)) == [stated]

    champions.promote("registered", 2)
    aliases = {v.version: v.aliases for v in registry.models() if v.name == "registered"}
    assert aliases == {1: (), 2: ("champion",)}

    both = versions.compare("registered/1", "registered@champion")
    assert [item["version"] for item in both["versions"]] == [1, 2]
    assert (both["config"], both["data"]) == ({}, {})
    assert both["metrics"]["psnr_y"] == [trained.result["metrics"]["psnr_y"]] * 2
    assert both["test"] is None  # the run has no test images
    (shown,) = versions.details("registered", 2)
    assert rain.folder.name in shown["datasets"]["train"]
    card = (registry.model_folder(first.uri).parents[1] / "README.md").read_text()
    assert f"{trained.result['metrics']['psnr_y']:.3f}" in card
    with pytest.raises(UsageError, match="registered version 9: not in the registry"):
        versions.details("registered", 9)
    for wrong in ("registered", "registered/x"):
        with pytest.raises(UsageError):
            versions.compare(wrong, "registered/1")


def test_a_model_folder_is_scored_first(
    trained: Any, rain_datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    """Imported weights become a version that can be compared with that of a run."""
    reported = str(rain_datasets[1])
    loaded = load_network(trained.result["checkpoint"])
    folder = save_model_folder(loaded.network, tmp_path / "net", loaded.name, loaded.options)
    with pytest.raises(UsageError, match="--on PREPARED"):
        register(folder, "imported")
    done = register(folder, "imported", on=[reported])
    (version,) = [version for version in registry.models() if version.name == "imported"]
    measured = evaluate(str(folder), [reported], workers=1)["datasets"][0]
    assert version.tags["evaluation_sha256"] == measured["manifest_sha256"]
    assert float(version.tags["psnr_y"]) == pytest.approx(measured["metrics"]["psnr_y"])
    assert version.tags["protocol"] == "rain13k v1"
    assert (done.version, done.alias) == (1, "champion")
    versions = load_network(done.uri).network.state_dict()
    saved = loaded.network.state_dict()
    assert all(torch.equal(versions[name], saved[name]) for name in saved)
    with pytest.raises(UsageError, match="leave out --on"):
        register(trained.result["checkpoint"], "imported", on=[reported])


def test_a_trained_run_is_registered_once_if_its_config_says_so(trained: Any) -> None:
    plain = with_registration(trained.config, trained.result)
    assert (plain["registered"], plain["register_error"]) == (None, None)
    config = trained.config.replaced({"register": {"name": "by-train"}}, "test")
    first = with_registration(config, trained.result)["registered"]
    assert first == {"name": "by-train", "version": 1, "alias": "champion"}
    again = {**trained.result, "resumed_from_step": 4}  # it had finished, and nothing was trained
    assert with_registration(config, again)["registered"] == first
    lost = {**trained.result, "checkpoint": "gone", "weights_sha256": "0"}
    failed = with_registration(config, lost)
    assert failed["registered"] is None
    assert "derainctl register gone --name by-train" in failed["register_error"]


def test_a_checkpoint_without_scores_is_refused(trained: Any, tmp_path: Path) -> None:
    run = tmp_path / "one"
    shutil.copytree(trained.config.folder, run)
    steps = sorted((run / "checkpoints").iterdir())
    assert len(steps) > 1
    with pytest.raises(UsageError, match=r"scored with step-00000004"):
        register(steps[0], "refused")
    (run / RESULT).unlink()
    with pytest.raises(UsageError, match="not finished"):
        register(steps[-1], "refused")
    assert "refused" not in {version.name for version in registry.models()}


def test_a_damaged_checkpoint_is_refused(trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained.config.folder, tmp_path / "one")
    newest = max((tmp_path / "one" / "checkpoints").iterdir())
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        register(newest, "refused")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        register(tmp_path, "refused")
