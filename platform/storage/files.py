"""Where files are: on this machine, s3:// or gs://, all behind the methods of pathlib.Path.

`located` gives a Path for a local place, else a RemotePath: it has those methods of Path that this
package uses and reaches its bytes through pyarrow. Credentials, region and endpoint come from the
environment (AWS_*, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST). Every
request has a time limit and a bounded number of tries; a body of another length than the store says
is fetched again.
"""

import contextlib
import errno
import functools
import io
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, TypeVar, cast

import pyarrow as pa
import pyarrow.fs

from derain.errors import DataError, StorageError
from derain.storage.direct import DirectFile

SCHEMES = ("s3:/", "gs:/")
REQUESTS = 5
"""Tries of one request, made by the store's own client with growing pauses."""
TRIES = 4
"""Tries of a whole operation, made here."""
TIMEOUT_S = 20.0
_PAUSE_S = 0.1
_BATCH = 1000

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Stat:
    """Size of a file in bytes, and when its content or its name last changed."""

    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


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


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when the block has ended and its bytes are safe.

    An exception in the block leaves nothing behind, a kill at most a hidden temporary file.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryFile() as spool:
            yield cast(BinaryIO, spool)
            path.upload(cast(BinaryIO, spool))
        return
    with _renamed(path) as temporary, temporary.open("wb+") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of `new_file` whose writer was killed."""
    for path in folder.glob(".*.tmp") if not isinstance(folder, RemotePath) else ():
        path.unlink(missing_ok=True)


class RemotePath(PurePosixPath):
    """s3://bucket/key or gs://bucket/key, with the methods of Path that this package uses."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    def resolve(self) -> "RemotePath":
        """Itself: it is absolute."""
        return self

    def exists(self) -> bool:
        """A file, or a folder with something in it."""
        return self._kind() != pa.fs.FileType.NotFound

    def is_file(self) -> bool:
        """An object of this very name."""
        return bool(self._kind() == pa.fs.FileType.File)

    def is_dir(self) -> bool:
        """A prefix of objects."""
        return bool(self._kind() == pa.fs.FileType.Directory)

    def stat(self) -> Stat:
        """Size and time of the last change; FileNotFoundError where there is no file."""
        return self.stats([""])[0]

    def stats(self, names: Sequence[str]) -> list[Stat]:
        """`stat` of files below this folder, side by side."""
        keys = [self._key(name) for name in names]
        infos = self._tried(lambda: self._store.get_file_info(keys))
        for key, info in zip(keys, infos, strict=True):
            if info.type != pa.fs.FileType.File:
                raise FileNotFoundError(f"{self.parts[0]}//{key}: no such file")
        return [Stat(info.size, info.mtime_ns, info.mtime_ns) for info in infos]

    def iterdir(self) -> "Iterator[RemotePath]":
        """What is in the folder; nothing where there is none.

        From all names below: pyarrow lists no folder of gs:// that has no object of its own.
        """
        yield from (self / name for name in sorted({name.split("/")[0] for name in self.walk()}))

    def walk(self) -> Iterator[str]:
        """Names of all files below this folder."""
        start = len(self._key()) + 1
        for info in self._listed():
            if info.type == pa.fs.FileType.File:
                yield info.path[start:]

    def read_bytes(self) -> bytes:
        """All bytes, as many as the store says there are."""
        return self._tried(self._read)

    def read_text(self, encoding: str = "utf-8") -> str:
        """All bytes as text."""
        return self.read_bytes().decode(encoding)

    def read_range(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; fewer where the file ends before."""
        return self._tried(lambda: self._read(offset, length))

    def write_bytes(self, data: bytes) -> int:
        """Make the file of these bytes."""
        self.upload(io.BytesIO(data))
        return len(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> int:
        """Make the file of this text."""
        return self.write_bytes(text.encode(encoding))

    def upload(self, file: BinaryIO) -> None:
        """Make the file of another one's bytes; it appears when all have arrived."""
        self._tried(lambda: self._upload(file))

    def open(self, mode: str = "rb") -> BinaryIO:
        """A stream of the bytes, all fetched at once."""
        if mode != "rb":
            raise ValueError(f"{self}: mode {mode}; use new_file to write.")
        return io.BytesIO(self.read_bytes())

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do: folders are there when files are in them."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        with contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext():
            self._tried(lambda: self._store.delete_file(self._key()))

    def rmdir(self) -> None:
        """Nothing to do, as for mkdir; a marker of the folder that some client left goes."""
        self._tried(lambda: self._store.delete_dir(self._key()) if self.is_dir() else None)

    @property
    def _store(self) -> pa.fs.FileSystem:
        return _store(self.parts[0])

    def _key(self, name: str = "") -> str:
        return "/".join((*self.parts[1:], *((name,) if name else ())))

    def _kind(self) -> Any:
        return self._tried(lambda: self._store.get_file_info(self._key())).type

    def _listed(self) -> Iterable[Any]:
        selector = pa.fs.FileSelector(self._key(), allow_not_found=True, recursive=True)
        return cast(Iterable[Any], self._tried(lambda: self._store.get_file_info(selector)))

    def _read(self, offset: int = 0, length: int | None = None) -> bytes:
        with self._store.open_input_file(self._key()) as file:
            wanted = max(0, min(file.size() - offset, file.size() if length is None else length))
            data = file.read_at(wanted, offset)
        if len(data) != wanted:
            raise OSError(f"{len(data)} bytes arrived of {wanted}")
        return cast(bytes, data)

    def _upload(self, file: BinaryIO) -> None:
        file.seek(0)
        with self._store.open_output_stream(self._key()) as out:
            while block := file.read(2**22):
                out.write(block)

    def _tried(self, work: Callable[[], Result]) -> Result:
        """Try a few times; StorageError names the file when none of them went well."""
        for number in range(TRIES):
            try:
                return work()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                last = error
                time.sleep(_PAUSE_S * 4**number)
        raise StorageError(f"{self}: {last} (tried {TRIES} times).") from None


@functools.cache
def _store(scheme: str) -> pa.fs.FileSystem:
    if scheme == "gs:":
        limit = timedelta(seconds=REQUESTS * TIMEOUT_S)
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")  # as Google's own clients name it
        if not emulator:
            return pa.fs.GcsFileSystem(retry_time_limit=limit)
        protocol, _, host = emulator.rpartition("://")
        return pa.fs.GcsFileSystem(
            anonymous=True,
            scheme=protocol or "http",
            endpoint_override=host,
            retry_time_limit=limit,
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return pa.fs.S3FileSystem(
        endpoint_override=endpoint,
        request_timeout=TIMEOUT_S,
        connect_timeout=TIMEOUT_S,
        retry_strategy=pa.fs.AwsStandardS3RetryStrategy(max_attempts=REQUESTS),
    )
