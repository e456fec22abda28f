"""Write files and folders that are whole or absent: they get their name once they are complete."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from derain.storage.direct import DirectFile
from derain.storage.names import MAX_BYTES, fitting
from derain.storage.remote import RemotePath


@contextlib.contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which gets its name at the end of the block, when its bytes are on disk.

    An exception in the block leaves nothing behind, a kill at most a hidden temporary file. With
    `durable=False` a power cut may lose the file: for files that can be made again or are
    rewritten often.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryFile() as spool:
            yield cast(BinaryIO, spool)
            path.upload(cast(BinaryIO, spool))
        return
    with _renamed(path) as temporary, temporary.open("wb+") as file:
        yield file
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text as UTF-8, like `new_file`."""
    with new_file(path, durable=durable) as file:
        file.write(text.encode())


@contextlib.contextmanager
def new_large_file(path: Path) -> Iterator["Writable"]:
    """Like `new_file`, for files of many megabytes that are only appended to."""
    if isinstance(path, RemotePath):
        with new_file(path) as spool:
            yield spool
        return
    with _renamed(path) as temporary, contextlib.closing(DirectFile(temporary)) as file:
        yield file
        file.finish()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A local folder to fill with files. It gets its name at the end of the block, when all of its
    files are on disk, and replaces a folder of that name.

    An exception in the block leaves nothing behind, a kill at most a hidden temporary folder. Only
    a kill between removing the old folder and renaming the new one leaves no folder of that name.
    """
    temporary = _hidden(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Writable(Protocol):
    """A file that can only be appended to."""

    def write(self, data: bytes, /) -> int:
        """Append."""
        ...


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A hidden temporary path, which is renamed to `path` unless the block raises.

    An OSError gets the name of the file: by itself that of a full disk has only a number. One that
    names another file, from which the block has read, keeps it.
    """
    temporary = _hidden(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _hidden(path: Path) -> Path:
    mark = f".{uuid.uuid4().hex[:8]}.tmp"
    return path.with_name(f".{fitting(path.name, MAX_BYTES - 1 - len(mark))}{mark}")


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of killed writers. No writer may be active."""
    if isinstance(folder, RemotePath):
        return
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
