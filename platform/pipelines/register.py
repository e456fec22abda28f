"""A scored checkpoint -> a version of a registered model."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.data.loading.cache import TarPixels
from derain.data.prepared.manifest import open_prepared
from derain.errors import UsageError
from derain.inference.predictor import save_model_folder
from derain.pipelines.train.run import IDENTITY, RESULT, read_json
from derain.tracking import registry
from derain.tracking.registry import Registered
from derain.training import checkpoint
from derain.training.factory import restore_network


def register(folder: str | Path, name: str, *, trust: bool = False) -> Registered:
    """Register a checkpoint of a finished run, with the scores that the run measured for it.

    Raises UsageError when the checkpoint is not the one that its run was scored with, WeightsError
    when it is damaged.
    """
    saved = checkpoint.load(folder)
    run = saved.folder.parent.parent
    result = _result_of(run, saved.folder)
    datasets = result["datasets"]
    with tempfile.TemporaryDirectory() as scratch:
        options = saved.config.model.model_dump(exclude={"name"})
        model_folder = save_model_folder(
            restore_network(saved, trust=trust),
            Path(scratch) / "model",
            saved.config.model.name,
            options,
        )
        return registry.register(
            model_folder,
            name,
            run_id=read_json(run / IDENTITY)["run_id"],
            scores=result["metrics"],
            evaluation_sha256=_combined([item["manifest_sha256"] for item in datasets]),
            tags=_lineage(saved.config, saved.state.manifests, result),
            example=TarPixels(open_prepared(saved.config.data.eval[0]))[0][:1],
        )


def _result_of(run: Path, folder: Path) -> dict[str, Any]:
    path = run / RESULT
    if not path.is_file():
        raise UsageError(f"{run}: the run is not finished, so its checkpoint has no scores.")
    result = read_json(path)
    if Path(result["checkpoint"]).name != folder.name:
        raise UsageError(
            f"{folder}: the run was scored with {Path(result['checkpoint']).name}; register that."
        )
    return result


def _lineage(config: Config, manifests: Sequence[str], result: dict[str, Any]) -> dict[str, str]:
    evaluated = [item["manifest_sha256"] for item in result["datasets"]]
    return {
        "train_manifest_sha256": ",".join(manifests),
        "eval_manifest_sha256": ",".join(evaluated),
        "config_sha256": config.digest(),
        "weights_sha256": result["weights_sha256"],
        "protocol": result["protocol"],
        "profile": config.profile or "",
        "input_psnr_y": repr(result["input"]["psnr_y"]),
        "encoder_weights": _encoder(config),
    }


def _encoder(config: Config) -> str:
    """Which weights the frozen encoder began with; nothing for a network without one."""
    named = getattr(config.model, "encoder_weights", "")
    return "published" if named is None else named


def _combined(digests: Sequence[str]) -> str:
    """One digest for the datasets that a score is the mean of."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
