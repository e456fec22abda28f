"""Files in s3:// and gs://, behind those methods of pathlib.Path that this package uses.

Bytes travel through pyarrow. Credentials, region and endpoint come from the environment (AWS_*,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST). Every request has a time
limit and a bounded number of tries; a body of another length than the store says is fetched again.
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
"""Tries of one request, made by the store's own client with growing pauses."""
TRIES = 4
"""Tries of a whole operation, made here."""
TIMEOUT_S = 20.0
_PAUSE_S = 0.1

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
