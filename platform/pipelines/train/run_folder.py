"""The folder of a run: the names of its files, and reserving it for a new run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.errors import OccupiedError
from derain.pipelines.train.metrics_file import METRICS_FILE
from derain.storage.atomic import write_text
from derain.storage.files import locate
from derain.storage.output_paths import check_folder
from derain.training import checkpoint
from derain.training.ledger import LEDGERS

RESULT = "result.json"
"""Written at the end of a finished run: what `derainctl train --json` prints."""
PAUSED = "paused.json"
"""Written where a trial pauses: the step and the metrics at that step."""
IDENTITY = "mlflow.json"
"""The ID of the MLflow run."""
GALLERY = "gallery.png"
UPLOADED = (LEDGERS, METRICS_FILE, IDENTITY)
"""Patterns of the files that are uploaded with every checkpoint."""
LOCKS = (checkpoint.LOCK, checkpoint.COMMAND_LOCK)
"""Files that a command leaves in the folder even if it ended before the run began."""


def claim(config: Config) -> None:
    """Reserve the folder of a new run or sweep. Raises what `check_unused` raises."""
    check_unused(config)
    config.folder.mkdir(parents=True, exist_ok=True)


def check_unused(config: Config) -> None:
    """Check the folder of a new run or sweep, and its place at `train.upload_to`.

    Raises OccupiedError if either is in use; the message says how to continue that run.
    """
    folder, name = config.folder, config.name
    check_folder(folder)
    if (folder / RESULT).is_file():
        raise OccupiedError(
            f"{folder}: holds a finished run. Give another --set name=..., or continue training it "
            f"with --resume {name} --set train.steps=..."
        )
    if (folder / checkpoint.CONFIG).is_file():
        raise OccupiedError(
            f"{folder}: holds an unfinished run. Continue it with --resume {name}, "
            "or give another --set name=..."
        )
    if folder.is_dir() and any(path.name not in LOCKS for path in folder.iterdir()):
        raise OccupiedError(f"{folder}: not empty. Give another --set name=... or output_dir.")
    if config.train.upload_to is not None:
        _require_empty(locate(config.train.upload_to) / name, name)


def _require_empty(remote: Path, name: str) -> None:
    """Raise OccupiedError for a folder of another run: their checkpoints would be mixed up."""
    if remote.is_dir() and any(remote.iterdir()):
        raise OccupiedError(
            f"{remote}: train.upload_to already holds a run of this name. Continue that run with "
            f"--resume {name}, or give another --set name=... or train.upload_to."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(tree, indent=2) + "\n", durable=False)
