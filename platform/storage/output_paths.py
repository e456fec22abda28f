"""Check where a command will write before it starts, so that no work is lost to a bad path."""

import os
from pathlib import Path

from derain.errors import OccupiedError, StorageError, UsageError
from derain.storage.files import is_remote


def check_folder(folder: Path) -> None:
    """Raise OccupiedError if a file is in the way of a folder, UsageError if the folder cannot be
    written to, StorageError if its disk is full. A folder in an object store passes."""
    _check(folder, folder)


def check_file(file: Path) -> None:
    """The same for a file, which may exist; raises OccupiedError if it is a folder."""
    if file.is_dir():
        raise OccupiedError(f"{file}: is a folder, expected a file name. Choose another name.")
    _check(file.parent, file)


def may_write(folder: Path) -> bool:
    """Whether this process may make files in a folder."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def _check(folder: Path, shown: Path) -> None:
    """`check_folder`, with messages about the path that the user gave."""
    if is_remote(folder):
        return
    path = folder.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir():
        raise OccupiedError(f"{shown}: {existing} is a file, expected a folder. Choose another.")
    disk = os.statvfs(existing)
    if disk.f_flag & os.ST_RDONLY:
        raise UsageError(f"{shown}: {existing} is on a read-only disk. Choose another folder.")
    if disk.f_blocks and not disk.f_bavail:
        raise StorageError(f"{shown}: the disk of {existing} is full. Free some space there.")
    if not may_write(existing):
        raise UsageError(f"{shown}: no permission to write to {existing}. Choose another folder.")
