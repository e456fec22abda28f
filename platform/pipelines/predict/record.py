"""Which results in a folder are those of this command, so that a stopped one goes on where it was.

The folder has a line for each result, written before the result gets its name:

    {"request", "name", "input", "output"}

`request` is a digest of the model and of all options that pixels depend on, `input` and `output`
are those of the files. A result with a line that fits is left as it is; any other file in its place
is somebody's.

    .predict.jsonl            the lines of calls that work in their own process
    .predict.1f2e3d4c.jsonl   those of one worker, and so on

Each worker has a file of its own: on NFS lines that several nodes append to one file overwrite each
other.
"""

import hashlib
import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = ".predict.jsonl"
RECORDS = ".predict*.jsonl"
"""Pattern of the files of all writers."""


def request_digest(request: Mapping[str, Any]) -> str:
    """The digest of what results depend on, which is JSON."""
    return sha256(json.dumps(request, sort_keys=True).encode())


class Record:
    """The results that a folder has by now."""

    def __init__(self, folder: Path, request: str) -> None:
        """`request` is a digest, see `request_digest`."""
        self._folder, self._request = folder, request
        self._lines: dict[str, list[dict[str, str]]] = defaultdict(list)
        for path in folder.glob(RECORDS):
            for line in path.read_bytes().splitlines():
                self._note(line)

    def has(self, name: str, given: Path) -> bool:
        """Whether the file `name` is the result of this request for a file."""
        lines = self._lines.get(name)
        if not lines:
            return False
        try:
            found = {"input": file_sha256(given), "output": file_sha256(self._folder / name)}
        except OSError:
            return False
        return found in lines

    def _note(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            if found["request"] == self._request:
                self._lines[found["name"]].append({key: found[key] for key in ("input", "output")})
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # cut off by a kill


class Writer:
    """Adds lines to a file that nobody else writes."""

    def __init__(self, folder: Path, request: str, *, alone: bool = True) -> None:
        """Others that write for the same folder now are not `alone`."""
        name = RECORD if alone else f".predict.{uuid.uuid4().hex[:8]}.jsonl"
        self._path, self._request = folder / name, request
        self._lock = threading.Lock()

    def add(self, name: str, given: str, result: str) -> None:
        """Note a result, which is about to get its name; `given` and `result` are SHA-256."""
        line = {"request": self._request, "name": name, "input": given, "output": result}
        with self._lock, self._path.open("ab") as file:
            file.write(b"\n" * self._is_cut_off() + json.dumps(line).encode() + b"\n")

    def _is_cut_off(self) -> bool:
        """Whether the last line lacks its end: its writer was killed."""
        with self._path.open("rb") as file:
            size = file.seek(0, 2)
            return size > 0 and (file.seek(size - 1), file.read(1))[1] != b"\n"


def is_recorded(folder: Path) -> bool:
    """Whether this command has written results into a folder before."""
    return any(folder.glob(RECORDS))


def sha256(data: bytes) -> str:
    """The digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
