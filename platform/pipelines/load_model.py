"""MODEL of the command line -> a network: registered version, checkpoint, folder or file."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from derain.errors import UsageError
from derain.inference.exported import is_exported, load_exported
from derain.inference.predictor import NETWORK_FILE, Predictor, load_model_folder
from derain.tracking import registry
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.training.process.device import device_named


def load_predictor(
    model: str,
    device: str = "auto",
    *,
    trust: bool = False,
    stride: int | None = None,
) -> Predictor:
    """The predictor of a model: models:/NAME@alias, models:/NAME/VERSION, runs:/ID/model, a
    checkpoint or model folder, or an exported file (.onnx, .pt2, TorchScript).

    `device` is `auto`, `cpu` or `cuda`; exported files run on the CPU. `trust` allows what may run
    code: .pt2, TorchScript, networks of a class of the user's. `stride` is for exported files that
    do not say theirs.

    Raises UsageError for `cuda` where there is none, and with an exported file.
    """
    computes_on = device_named(device)
    if is_exported(model):
        if device == "cuda":
            raise UsageError(f"{model}: exported files run on the CPU; give --device cpu or auto.")
        return Predictor(load_exported(model, trust=trust, stride=stride), "cpu")
    if model.startswith(("models:/", "runs:/")):
        return Predictor(load_model_folder(registry.model_folder(model), trust=trust), computes_on)
    if (Path(model) / checkpoint.STATE).is_file():
        return Predictor(restore_network(checkpoint.load(model), trust=trust), computes_on)
    return Predictor(load_model_folder(model, trust=trust), computes_on)


def load_network(model: str, trust: bool) -> tuple[nn.Module, str, dict[str, Any]]:
    """The network, and what `derain.models.build` was called with."""
    if (Path(model) / checkpoint.STATE).is_file():
        saved = checkpoint.load(model)
        options = saved.config.model.model_dump(exclude={"name"})
        return restore_network(saved, trust=trust), saved.config.model.name, options
    named = model.startswith(("models:/", "runs:/"))
    folder = Path(registry.model_folder(model) if named else model)
    network = load_model_folder(folder, trust=trust)
    told = json.loads((folder / NETWORK_FILE).read_text(encoding="utf-8"))
    return network, told["name"], told["options"]
