"""Reading files by name, wherever they are: on this machine, in s3:// or in gs://.

`located` gives a Path for a local place, else a RemotePath, which has the methods of Path that this
package uses. What is read by the million here is read by plain calls: a fifth of the time of
Path.stat, half of that of Path.read_bytes.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from derain.errors import DataError
from derain.storage.remote import SCHEMES, RemotePath, Stat

_BATCH = 1000


def located(place: str | os.PathLike[str]) -> Path:
    """A place that a user names, absolute: workers have another working directory."""
    text = os.fspath(place)
    if text.startswith(SCHEMES):
        return cast(Path, RemotePath(text))
    return Path(text).expanduser().resolve()


def is_remote(path: Path) -> bool:
    """Whether a place is in an object store."""
    return isinstance(path, RemotePath)


def stats(folder: Path, names: Sequence[str]) -> Iterator[Stat | None]:
    """What is known of files below a folder, in order; None for what is none.

    That is a link to nowhere, a pipe, a device. Of a store it raises FileNotFoundError.
    """
    if isinstance(folder, RemotePath):
        for at in range(0, len(names), _BATCH):
            yield from folder.stats(names[at : at + _BATCH])
        return
    for name in names:
        yield _stat(f"{folder}/{name}")


def _stat(place: str) -> Stat | None:
    try:
        found = os.stat(place)  # noqa: PTH116 - a fifth of the time of Path.stat
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    if not stat.S_ISREG(found.st_mode):
        return None
    return Stat(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_bytes(folder: Path, name: str) -> bytes:
    """All bytes of a file below a folder; of a local one in half the time of Path.read_bytes."""
    if isinstance(folder, RemotePath):
        return (folder / name).read_bytes()
    with open(f"{folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def read_range(path: Path, offset: int, length: int) -> bytes:
    """`length` bytes of a file from `offset` on; fewer where it ends before."""
    if isinstance(path, RemotePath):
        return path.read_range(offset, length)
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, offset)


def walk(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, with slashes, in no order; links are followed.

    Raises DataError for a folder that cannot be read: what is in it would be missing in silence.
    """
    if isinstance(folder, RemotePath):
        yield from folder.walk()
        return
    yield from _walk(str(folder), "", ())


def _walk(place: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """A folder that a link leads to is not entered where it is one of those `above`."""
    try:
        found = os.stat(place)  # noqa: PTH116
        here = found.st_dev, found.st_ino
        entries = [] if here in above else list(os.scandir(place))
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror}).") from None
    for entry in entries:
        if _is_folder(entry):
            yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
        else:
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
