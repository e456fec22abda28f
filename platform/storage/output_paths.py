"""Check where a command will write before it starts, so that no work is lost to a bad path."""

import os
from pathlib import Path

from derain.errors import OccupiedError, UsageError


def check_folder(folder: Path) -> None:
    """Raise OccupiedError if a file is in the way of a folder, UsageError if the folder cannot be
    written to."""
    path = folder.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir():
        raise OccupiedError(f"{folder}: {existing} is a file, expected a folder. Choose another.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: no permission to write to {existing}. Choose another folder.")


def check_file(file: Path) -> None:
    """The same for a file, which may exist; raises OccupiedError if it is a folder."""
    if file.is_dir():
        raise OccupiedError(f"{file}: is a folder, expected a file name. Choose another name.")
    check_folder(file.parent)
