"""What MODEL was trained on, where that was recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import open_training
from derain.errors import DerainError
from derain.inference.predictor import WEIGHTS_FILE
from derain.models.published_weights import published_in
from derain.pipelines.named.checkpoint_of import checkpoint_of
from derain.tracking.lineage import find_version
from derain.training import checkpoint

TAG = "trained_on"
"""Of a registered version: `rain13k/train:13711,rain100h/train:1254`."""


def trained_on(model: str) -> list[dict[str, Any]] | None:
    """`dataset`, `split` and `pairs` of each training dataset of a registered version or of
    what `checkpoint_of` takes: a checkpoint, a run, a sweep.

    Also of published weights that were imported into a model folder, by their digest. None if that
    is not known: of other model folders and exported files, of versions that were registered before
    it was recorded, and of checkpoints whose datasets are no longer there.
    """
    if model.startswith("models:/"):
        version = find_version(model)
        try:
            return parsed(version.tags[TAG]) if version and TAG in version.tags else None
        except ValueError:  # anybody can edit a tag
            return None
    if model.startswith("runs:/"):
        return None
    folder = checkpoint_of(model)
    if folder is None:
        return _of_published(Path(model) / WEIGHTS_FILE)
    saved = checkpoint.load(folder)
    try:
        datasets = open_training(saved.config.data)
    except (DerainError, OSError):
        return None
    if [dataset.sha256() for dataset in datasets] != list(saved.state.manifests):
        return None
    return parsed(tag_of(datasets))


def _of_published(weights: Path) -> list[dict[str, Any]] | None:
    entry = published_in(weights) if weights.is_file() else None
    return parsed(entry.trained_on) if entry else None


def tag_of(datasets: Sequence[Prepared]) -> str:
    """The value of `TAG` for these training datasets."""
    return ",".join(f"{it.manifest.dataset}/{it.manifest.split}:{len(it)}" for it in datasets)


def parsed(tag: str) -> list[dict[str, Any]]:
    """The datasets of a value of `TAG`."""
    found = []
    for item in tag.split(","):
        name, _, pairs = item.rpartition(":")
        dataset, _, split = name.rpartition("/")
        found.append({"dataset": dataset, "split": split, "pairs": int(pairs)})
    return found
