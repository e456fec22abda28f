"""Files in s3:// and gs://, with the methods of pathlib.Path that this package uses.

Bytes are transferred by pyarrow. Credentials, region and endpoint come from the environment (AWS_*,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST). Every request has a
timeout and a limited number of tries; a body shorter or longer than announced is fetched again.
"""

import contextlib
import functools
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
import pyarrow.fs

from derain.errors import StorageError

SCHEMES = ("s3:/", "gs:/")
REQUESTS = 5
"""Tries of one request by the store's own client, with growing pauses."""
TRIES = 4
"""Tries of a whole operation by this module."""
TIMEOUT_S = 20.0
_PAUSE_S = 0.1
_BLOCK = 2**22
_IN_MEMORY = 2**25
"""Bytes of an upload that are in memory, beside those of one request."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Stat:
    """Size of a file in bytes, and when its content or its name last changed."""

    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


class RemotePath(PurePosixPath):
    """s3://bucket/key or gs://bucket/key, with the methods of Path that this package uses."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    def resolve(self) -> "RemotePath":
        """The path itself, which is always absolute."""
        return self

    def exists(self) -> bool:
        """True for a file, and for a folder with a file in it."""
        return self._kind() != pa.fs.FileType.NotFound

    def is_file(self) -> bool:
        """True for an object of this name."""
        return bool(self._kind() == pa.fs.FileType.File)

    def is_dir(self) -> bool:
        """True for a prefix of objects."""
        return bool(self._kind() == pa.fs.FileType.Directory)

    def stat(self) -> Stat:
        """Size and time of the last change. Raises FileNotFoundError without such a file."""
        return self.stats([""])[0]

    def stats(self, names: Sequence[str]) -> list[Stat]:
        """`stat` of files below this folder, in one request."""
        keys = [self._key(name) for name in names]
        infos = self._retry(lambda: self._store.get_file_info(keys))
        for key, info in zip(keys, infos, strict=True):
            if info.type != pa.fs.FileType.File:
                raise FileNotFoundError(f"{self.parts[0]}//{key}: no such file")
        return [Stat(info.size, info.mtime_ns, info.mtime_ns) for info in infos]

    def iterdir(self) -> "Iterator[RemotePath]":
        """The files and folders in this folder; empty if it does not exist.

        Derived from the names of all files below, because pyarrow does not list folders in gs://
        without an object of their own.
        """
        yield from (self / name for name in sorted({name.split("/")[0] for name in self.walk()}))

    def walk(self) -> Iterator[str]:
        """Relative names of all files below this folder."""
        start = len(self._key()) + 1
        for info in self._listed():
            if info.type == pa.fs.FileType.File:
                yield info.path[start:]

    def read_bytes(self) -> bytes:
        """All bytes, as many as the store announces."""
        return self._retry(self._read)

    def read_text(self, encoding: str = "utf-8") -> str:
        """All bytes as text."""
        return self.read_bytes().decode(encoding)

    def read_range(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; fewer at the end of the file."""
        return self._retry(lambda: self._read(offset, length))

    def write_bytes(self, data: bytes) -> int:
        """Write the file."""
        self.upload(io.BytesIO(data))
        return len(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> int:
        """Write a text to the file."""
        return self.write_bytes(text.encode(encoding))

    def upload(self, file: BinaryIO) -> None:
        """Write the bytes of an open local file; the remote file appears when all are there.

        If they cannot be read, or the upload is interrupted, there is no file of that name.
        """
        self._retry(lambda: self._upload(file))

    def open(self, mode: str = "rb") -> BinaryIO:
        """A stream of the bytes, which are fetched at once."""
        if mode != "rb":
            raise ValueError(f"{self}: mode {mode} is not supported; use new_file to write.")
        return io.BytesIO(self.read_bytes())

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder exists if a file is in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        with contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext():
            self._retry(lambda: self._store.delete_file(self._key()))

    def replace(self, target: "RemotePath") -> "RemotePath":
        """Rename the file, or replace `target` by it: the store copies it, then it is deleted."""
        self._retry(lambda: self._store.copy_file(self._key(), target._key()))
        self.unlink()
        return target

    def rmdir(self) -> None:
        """Delete the marker object of the folder that some clients create, if there is one."""
        self._retry(lambda: self._store.delete_dir(self._key()) if self.is_dir() else None)

    @property
    def _store(self) -> pa.fs.FileSystem:
        return _store(self.parts[0])

    def _key(self, name: str = "") -> str:
        return "/".join((*self.parts[1:], *((name,) if name else ())))

    def _kind(self) -> Any:
        return self._retry(lambda: self._store.get_file_info(self._key())).type

    def _listed(self) -> Iterable[Any]:
        selector = pa.fs.FileSelector(self._key(), allow_not_found=True, recursive=True)
        return cast(Iterable[Any], self._retry(lambda: self._store.get_file_info(selector)))

    def _read(self, offset: int = 0, length: int | None = None) -> bytes:
        with self._store.open_input_file(self._key()) as file:
            expected = max(0, min(file.size() - offset, file.size() if length is None else length))
            data = file.read_at(expected, offset)
        if len(data) != expected:
            raise OSError(f"{len(data)} of {expected} bytes arrived")
        return cast(bytes, data)

    def _upload(self, file: BinaryIO) -> None:
        """Several requests of 10 MiB at a time; without `flush` the whole file would be in memory,
        waiting for them."""
        file.seek(0)
        out = self._store.open_output_stream(self._key())
        try:
            while block := file.read(_BLOCK):
                out.write(block)
                if file.tell() % _IN_MEMORY < _BLOCK:
                    out.flush()
        except BaseException:
            with contextlib.suppress(OSError, pa.ArrowException):
                out.close()  # the only end of a stream, which makes a file of what has arrived
                self._store.delete_file(self._key())
            raise
        out.close()

    def _retry(self, work: Callable[[], Result]) -> Result:
        """Try up to TRIES times. Raises StorageError that names the file if all tries fail."""
        for number in range(TRIES):
            try:
                return work()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                if number == TRIES - 1:
                    raise StorageError(f"{self}: {error} (tried {TRIES} times).") from None
            time.sleep(_PAUSE_S * 4**number)
        raise AssertionError("the last try returns or raises")


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
        allow_delayed_open=True,  # a file below 10 MiB is one request instead of three
        retry_strategy=pa.fs.AwsStandardS3RetryStrategy(max_attempts=REQUESTS),
    )
