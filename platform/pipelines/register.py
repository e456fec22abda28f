"""`register`: a scored checkpoint, or a model folder -> a version of a registered model."""

import hashlib
import logging
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from torch import nn

from derain.config import Config
from derain.config.data import DataConfig
from derain.data.loading.cache import TarPixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.prepared.roles import open_training, open_validation
from derain.errors import DerainError, UsageError
from derain.inference.exported import is_exported
from derain.inference.predictor import NETWORK_FILE, load_model_folder, save_model_folder
from derain.models import fingerprint, is_user_defined
from derain.models.cost import cost
from derain.pipelines.evaluate.training_data import TAG, tag_of
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.load_model import restore
from derain.pipelines.named.checkpoint_of import checkpoint_of
from derain.pipelines.train.result import mlflow_test_metrics
from derain.pipelines.train.run_folder import IDENTITY, RESULT, read_json
from derain.plugins.identity import identity_tags
from derain.storage.files import is_remote
from derain.tracking import registry
from derain.tracking.registry import Registered
from derain.tracking.runs import RunLog
from derain.training import checkpoint

SIDES = ("metrics", "input")
"""Of the derained and of the rainy images."""
log = logging.getLogger(__name__)


def with_registration(config: Config, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a run that was just trained, registered if its config has `register`.

    Adds `registered` (`name`, `version`, `alias`) and `register_error`, at most one of them not
    null. A failure is a warning, as the run has its result whatever the registry does; weights of
    this run that are registered already, as those of a finished run that was resumed, stay one
    version.
    """
    if config.register_ is None:
        return {**result, "registered": None, "register_error": None}
    name, folder = config.register_.name, result["checkpoint"]
    try:
        done = _known(name, result) or register(folder, name, trust=True)  # trained by this command
    except Exception as error:  # MLflow and database drivers raise types of their own
        trust = ["--trust"] if is_user_defined(config.model.name) else []
        command = shlex.join(["derainctl", "register", folder, "--name", name, *trust])
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning(
            "train: %s has finished, but is not registered: %s Repeat that with `%s`.",
            config.name, reason, command,
            exc_info=None if isinstance(error, DerainError) else error,
        )  # fmt: skip
        why = f"{reason} Repeat it with `{command}`."
        return {**result, "registered": None, "register_error": why}
    registered = {"name": done.name, "version": done.version, "alias": done.alias}
    return {**result, "registered": registered, "register_error": None}


def _known(name: str, result: Mapping[str, Any]) -> Registered | None:
    """The version of a model that already has the weights of this run, if it was resumed."""
    if not result["resumed_from_step"]:
        return None
    for found in registry.models():
        same = found.tags.get("weights_sha256") == result["weights_sha256"]
        if found.name == name and same and found.run_id == result["mlflow_run_id"]:
            alias = found.aliases[0] if found.aliases else ""
            return Registered(name, found.version, alias, "It was registered before.")
    return None


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
        return _register_folder(Path(folder), name, on, protocol, trust=trust)
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


def _register_folder(
    folder: Path, name: str, on: Sequence[str], protocol: str, *, trust: bool
) -> Registered:
    """Score a model folder and register it, with an MLflow run of its own."""
    if not on:
        raise UsageError(
            f"{folder}: a model folder has no metrics, which a version needs to be compared. Give "
            "a prepared dataset to score it on: --on PREPARED."
        )
    network = load_model_folder(folder, trust=trust)
    result = evaluate(str(folder), on, protocols=[protocol], trust=trust)
    metrics, rainy = (_mean([item[side] for item in result["datasets"]]) for side in SIDES)
    datasets = [open_prepared(each) for each in on]
    with RunLog(f"register {folder.name}", tags={"kind": "register"}) as run:
        run.params({"model_folder": str(folder.absolute()), "protocol": protocol})
        for dataset in datasets:
            run.dataset(
                dataset.sha256(), dataset.folder.name, str(dataset.folder),
                context="validation", pairs=len(dataset),
            )  # fmt: skip
        run.metrics(0, metrics)
        run.flush()
        return registry.register(
            folder,
            name,
            run_id=run.run_id,
            scores=metrics,
            evaluation_sha256=_combined(result),
            tags={
                "train_manifest_sha256": "",
                "config_sha256": "",
                "eval_manifest_sha256": ",".join(
                    it["manifest_sha256"] for it in result["datasets"]
                ),
                "weights_sha256": fingerprint(network),
                "protocol": result["datasets"][0]["by_protocol"][protocol]["identity"],
                **{f"input_{key}": repr(value) for key, value in rainy.items()},
                **{key: str(value) for key, value in asdict(cost(network)).items()},
            },
            example=_first_rainy(datasets[0], DataConfig()),
        )


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of several datasets, each counting the same, as in the result of a run."""
    return {name: fmean(item[name] for item in metrics) for name in metrics[0]}


def _example(config: Config) -> np.ndarray:
    """A batch of one rainy image of the first validation dataset."""
    return _first_rainy(open_validation(config.data)[0], config.data)


def _first_rainy(dataset: Prepared, data: DataConfig) -> np.ndarray:
    if is_remote(dataset.folder):  # its images are in the cache, from scoring the run
        return open_all_pixels([dataset], data)[0][0][:1]
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
