"""Where a command is to write, checked before it works: nothing is lost for a name at the end."""

import os
from pathlib import Path

from derain.errors import OccupiedError, UsageError


def check_folder(folder: Path) -> None:
    """Raise OccupiedError where a file is in the way of a folder, UsageError where it may not be
    written to."""
    path = folder.absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise OccupiedError(f"{folder}: {there} is a file, expected a folder. Give another name.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: {there} may not be written to. Give another folder.")


def check_file(file: Path) -> None:
    """The same for a file that may be written over; a folder of that name is an OccupiedError."""
    if file.is_dir():
        raise OccupiedError(f"{file}: a folder, expected the name of a file to write.")
    check_folder(file.parent)
