"""MODEL on the command line -> a network: a registered version, checkpoint, folder or file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from derain.errors import UsageError
from derain.inference.exported import is_exported, load_exported
from derain.inference.predictor import NETWORK_FILE, Predictor, Tile, load_model_folder
from derain.pipelines.derainer import Derainer
from derain.pipelines.named.checkpoint_of import checkpoint_of
from derain.tracking import registry
from derain.training import checkpoint
from derain.training.checkpoint import Checkpoint
from derain.training.factory import restore_network
from derain.training.process.device import device_named


@dataclass(frozen=True)
class LoadedNetwork:
    """A trained network, and the arguments of `derain.models.build` that it was built with."""

    network: nn.Module
    name: str
    options: dict[str, Any]


def load_predictor(
    model: str,
    device: str = "auto",
    *,
    trust: bool = False,
    stride: int | None = None,
    tile: Tile = None,
) -> Predictor:
    """Load what `load_network` loads, or an exported file (.onnx, .pt2, TorchScript).

    `device` is `auto`, `cpu` or `cuda`; exported files run on the CPU. `trust` allows what may run
    code: .pt2, TorchScript, networks of a user-defined class. `stride` is for exported files that
    do not contain their stride. `tile` is that of `Predictor`.

    Raises UsageError for `cuda` without a GPU or with an exported file.
    """
    computes_on = device_named(device)
    if not is_exported(model):
        return Predictor(load_network(model, trust=trust).network, computes_on, tile)
    if device == "cuda":
        raise UsageError(f"{model}: exported files run on the CPU; give --device cpu or auto.")
    return Predictor(load_exported(model, trust=trust, stride=stride), "cpu", tile)


def load(
    model: str | Path,
    *,
    device: str = "auto",
    tile: Tile = "auto",
    trust: bool = False,
    stride: int | None = None,
) -> Derainer:
    """Load a model for use: `derain.load("models:/fclip-unet@champion")(image)`.

    `model` is models:/NAME@alias, models:/NAME/VERSION, a run, a checkpoint, a model folder or an
    exported file (.onnx, .pt2, TorchScript). `device` is `auto`, `cpu` or `cuda`; exported files
    run on the CPU. `tile`: larger images are cut into tiles of so many pixels a side, with `auto`
    those that do not fit into the memory, with None none. `trust` allows what may run code: .pt2,
    TorchScript, networks of a user-defined class. `stride` is for exported files that do not
    contain theirs.

    Raises WeightsError for anything that is no model, UsageError for `cuda` without a GPU or with
    an exported file.
    """
    return Derainer(load_predictor(str(model), device, trust=trust, stride=stride, tile=tile))


def load_network(model: str, *, trust: bool = False) -> LoadedNetwork:
    """Load models:/NAME@alias, models:/NAME/VERSION, runs:/ID/model, or a folder: of a checkpoint,
    of a run or a sweep (see `checkpoint_of`), or of a model.

    `trust` allows networks of a user-defined class, whose code would run. Raises WeightsError for
    anything else or damaged weights.
    """
    registered = model.startswith(("models:/", "runs:/"))
    saved = None if registered else checkpoint_of(model)
    if saved is not None:
        return restore(checkpoint.load(saved), trust=trust)
    folder = Path(registry.model_folder(model) if registered else model)
    network = load_model_folder(folder, trust=trust)
    description = json.loads((folder / NETWORK_FILE).read_text(encoding="utf-8"))
    return LoadedNetwork(network, description["name"], description["options"])


def restore(saved: Checkpoint, *, trust: bool = False) -> LoadedNetwork:
    """The network of a checkpoint, see `restore_network`."""
    options = saved.config.model.model_dump(exclude={"name"})
    return LoadedNetwork(restore_network(saved, trust=trust), saved.config.model.name, options)
