"""`register`: a scored checkpoint, or a model folder -> a version of a registered model."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from derain.config import Config
from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import names_of, open_training, open_validation
from derain.errors import UsageError
from derain.inference.exported import is_exported
from derain.inference.predictor import NETWORK_FILE, save_model_folder
from derain.models.cost import cost
from derain.pipelines.evaluate.training_data import TAG, tag_of
from derain.pipelines.load_model import restore
from derain.pipelines.named.checkpoint_of import checkpoint_of
from derain.pipelines.register.card import card
from derain.pipelines.register.model_folder import register_folder
from derain.pipelines.register.scored import combined, first_rainy
from derain.pipelines.train.result import mlflow_test_metrics
from derain.pipelines.train.run_folder import IDENTITY, RESULT, read_json
from derain.plugins.identity import identity_tags
from derain.tracking import registry
from derain.tracking.registry import Registered
from derain.training import checkpoint


def register(
    folder: str | Path,
    name: str,
    *,
    on: Sequence[str] = (),
    protocol: str = "rain13k",
    trust: bool = False,
) -> Registered:
    """Register a finished run, or its chosen checkpoint, with the metrics that it has measured.

    `folder` is what `checkpoint_of` takes: a run, a sweep or a checkpoint. Or it is a model folder,
    of imported weights for example, which has no metrics: it is scored on the prepared datasets
    `on` under `protocol`.

    Raises UsageError if the run was scored with another checkpoint or is not finished, if a model
    folder comes without datasets or a run with some; WeightsError for damaged weights.
    """
    registry.check_name(name)
    found = checkpoint_of(folder)
    if found is None and (Path(folder) / NETWORK_FILE).is_file():
        return register_folder(Path(folder), name, on, protocol, trust=trust)
    if on:
        raise UsageError(
            f"{folder}: a run has metrics of its own, on its validation images; leave out --on."
        )
    if is_exported(str(folder)):
        raise UsageError(
            f"{folder}: expected a run, a checkpoint or a model folder, found an exported file. "
            "Register what it was exported from."
        )
    saved = checkpoint.load(found or folder)
    run = saved.folder.parent.parent
    result = _read_result(run, saved.folder)
    with tempfile.TemporaryDirectory() as scratch:
        loaded = restore(saved, trust=trust)
        training = open_training(saved.config.data)
        tags = (
            _lineage(saved.config, saved.state.manifests, result)
            | _effort(loaded.network, result)
            | identity_tags(saved.state.plugins)
            | {TAG: tag_of(training)}
        )
        measured = {name: repr(value) for name, value in result["metrics"].items()}
        return registry.register(
            save_model_folder(loaded.network, Path(scratch) / "model", loaded.name, loaded.options),
            name,
            run_id=read_json(run / IDENTITY)["run_id"],
            scores=result["metrics"],
            evaluation_sha256=combined(result),
            tags=tags,
            example=_example(saved.config),
            card=card(name, loaded.name, {**tags, **measured}, _datasets(training, result)),
        )


def _datasets(training: Sequence[Prepared], result: Mapping[str, Any]) -> dict[str, str]:
    """The names of the datasets of each role."""
    scored = {"validation": result["datasets"], "test": (result.get("test") or {}).get("datasets")}
    names = {role: [item["name"] for item in found] for role, found in scored.items() if found}
    return {role: ", ".join(each) for role, each in {"train": names_of(training), **names}.items()}


def _example(config: Config) -> np.ndarray:
    """A batch of one rainy image of the first validation dataset."""
    return first_rainy(open_validation(config.data)[0], config.data)


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
    """What the version costs: parameters, multiply-adds of an image of 256x256 px, seconds."""
    counted = {key: str(value) for key, value in asdict(cost(network)).items()}
    if "train_seconds" not in result:  # the run was finished by an earlier version
        return counted
    return {**counted, "train_seconds": repr(result["train_seconds"])}


def _test_lineage(test: Mapping[str, Any] | None) -> dict[str, str]:
    """The metrics on the test images and their digest; nothing for a run without test images."""
    if test is None:
        return {}
    return {
        **{name: repr(value) for name, value in mlflow_test_metrics(test).items()},
        "test_sha256": combined(test),
        "chosen_on_test": str(test["chosen_on_test"]).lower(),
    }


def _encoder_weights(config: Config) -> str:
    """The weights that the frozen encoder started with; "" for a network without an encoder."""
    weights = getattr(config.model, "encoder_weights", "")
    return "published" if weights is None else weights
