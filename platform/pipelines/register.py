"""`register`: a scored checkpoint -> a version of a registered model."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from derain.config import Config
from derain.data.loading.cache import TarPixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.roles import open_training, open_validation
from derain.errors import UsageError
from derain.inference.predictor import save_model_folder
from derain.models.cost import cost
from derain.pipelines.evaluate.training_data import TAG, tag_of
from derain.pipelines.load_model import restore
from derain.pipelines.named.checkpoint_of import checkpoint_of
from derain.pipelines.train.result import mlflow_test_metrics
from derain.pipelines.train.run_folder import IDENTITY, RESULT, read_json
from derain.plugins.identity import identity_tags
from derain.storage.files import is_remote
from derain.tracking import registry
from derain.tracking.registry import Registered
from derain.training import checkpoint


def register(folder: str | Path, name: str, *, trust: bool = False) -> Registered:
    """Register a finished run, or its chosen checkpoint, with the metrics that it has measured.

    `folder` is what `checkpoint_of` takes: a run, a sweep or a checkpoint.

    Raises UsageError if the run was scored with another checkpoint or is not finished,
    WeightsError if the checkpoint is damaged.
    """
    registry.check_name(name)
    saved = checkpoint.load(checkpoint_of(folder) or folder)
    run = saved.folder.parent.parent
    result = _read_result(run, saved.folder)
    with tempfile.TemporaryDirectory() as scratch:
        loaded = restore(saved, trust=trust)
        return registry.register(
            save_model_folder(loaded.network, Path(scratch) / "model", loaded.name, loaded.options),
            name,
            run_id=read_json(run / IDENTITY)["run_id"],
            scores=result["metrics"],
            evaluation_sha256=_combined(result),
            tags=_lineage(saved.config, saved.state.manifests, result)
            | _effort(loaded.network, result)
            | identity_tags(saved.state.plugins)
            | {TAG: tag_of(open_training(saved.config.data))},
            example=_example(saved.config),
        )


def _example(config: Config) -> np.ndarray:
    """A batch of one rainy image of the first validation dataset."""
    dataset = open_validation(config.data)[0]
    if is_remote(dataset.folder):  # its images are in the cache, from scoring the run
        return open_all_pixels([dataset], config.data)[0][0][:1]
    return TarPixels(dataset)[0][:1]


def _read_result(run: Path, folder: Path) -> dict[str, Any]:
    """The result of a run, if this checkpoint was scored."""
    path = run / RESULT
    if not path.is_file():
        raise UsageError(f"{run}: the run is not finished, so its checkpoint has no scores.")
    result = read_json(path)
    scored = Path(result["checkpoint"]).name
    if scored != folder.name:
        raise UsageError(f"{folder}: the run was scored with {scored}; register that checkpoint.")
    return result


def _lineage(config: Config, manifests: Sequence[str], result: dict[str, Any]) -> dict[str, str]:
    return {
        "train_manifest_sha256": ",".join(manifests),
        "eval_manifest_sha256": ",".join(item["manifest_sha256"] for item in result["datasets"]),
        "config_sha256": config.digest(),
        "weights_sha256": result["weights_sha256"],
        "protocol": result["protocol"],
        "profile": config.profile or "",
        **{f"input_{name}": repr(value) for name, value in result["input"].items()},
        "encoder_weights": _encoder_weights(config),
        **_test_lineage(result.get("test")),
    }


def _effort(network: nn.Module, result: Mapping[str, Any]) -> dict[str, str]:
    """What the version costs: parameters, multiply-adds of an image of 256x256 px, training time.

    The time is that since the run was last resumed, if it was.
    """
    counted = {key: str(value) for key, value in asdict(cost(network)).items()}
    if "train_seconds" not in result:  # the run was finished by an earlier version
        return counted
    began = str(result.get("resumed_from_step") or 0)
    return {**counted, "train_seconds": repr(result["train_seconds"]), "trained_from_step": began}


def _test_lineage(test: Mapping[str, Any] | None) -> dict[str, str]:
    """The metrics on the test images and their digest; nothing for a run without test images."""
    if test is None:
        return {}
    return {
        **{name: repr(value) for name, value in mlflow_test_metrics(test).items()},
        "test_sha256": _combined(test),
        "chosen_on_test": str(test["chosen_on_test"]).lower(),
    }


def _encoder_weights(config: Config) -> str:
    """The weights that the frozen encoder started with; "" for a network without an encoder."""
    weights = getattr(config.model, "encoder_weights", "")
    return "published" if weights is None else weights


def _combined(scored: Mapping[str, Any]) -> str:
    """One digest for all datasets that the metrics are averaged over."""
    digests = [item["manifest_sha256"] for item in scored["datasets"]]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
