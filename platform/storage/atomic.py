"""New files and folders that get their name when all of their bytes are there: whole or absent."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from derain.storage.direct import DirectFile
from derain.storage.remote import RemotePath


@contextlib.contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when the block has ended and its bytes are safe.

    An exception in the block leaves nothing behind, a kill at most a hidden temporary file. Where
    `durable` is False a power cut may lose it: it is one that is made again or written often.
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
    """`new_file` of a text, as UTF-8."""
    with new_file(path, durable=durable) as file:
        file.write(text.encode())


@contextlib.contextmanager
def new_large_file(path: Path) -> Iterator["Writable"]:
    """`new_file` for what is only appended to and takes many megabytes."""
    if isinstance(path, RemotePath):
        with new_file(path) as spool:
            yield spool
        return
    with _renamed(path) as temporary, contextlib.closing(DirectFile(temporary)) as file:
        yield file
        file.finish()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A local folder to fill with files, which takes its name, and the place of what had it, when
    the block has ended and all is on the disk; an exception in the block leaves nothing behind."""
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
    """What `new_large_file` gives."""

    def write(self, data: bytes, /) -> int:
        """Append."""
        ...


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A hidden name beside a file's own, which takes its place unless there is an exception.

    An OSError names the file: that of a full disk knows only a number.
    """
    temporary = _hidden(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _sync(path: Path) -> None:
    """Have the disk take a file's bytes, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of this module whose writer was killed."""
    if isinstance(folder, RemotePath):
        return
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
