"""Which results in a folder are those of this command, so that a stopped one goes on where it was.

RECORD in the folder has a line for each result, written before the result gets its name:

    {"request", "name", "input", "output"}

`request` is a digest of the model and of all options that pixels depend on, `input` and `output`
are those of the files. A result whose line fits is left as it is; any other file in its place is
somebody's.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = ".predict.jsonl"


class Record:
    """The results that a folder has, and those that are added."""

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        """`request` is JSON."""
        self._folder = folder
        self._path = folder / RECORD
        self._request = sha256(json.dumps(request, sort_keys=True).encode())
        self._lines: dict[str, dict[str, str]] = {}
        for line in self._path.read_bytes().splitlines() if self._path.is_file() else ():
            self._note(line)

    def has(self, name: str, given: Path) -> bool:
        """Whether the file `name` is the result of this request for a file."""
        line = self._lines.get(name)
        if line is None:
            return False
        try:
            found = {"input": file_sha256(given), "output": file_sha256(self._folder / name)}
        except OSError:
            return False
        return line == found

    def add(self, name: str, given: str, result: str) -> None:
        """Note a result, which is about to get its name; `given` and `result` are SHA-256."""
        line = {"request": self._request, "name": name, "input": given, "output": result}
        with self._path.open("ab") as file:
            file.write(b"\n" * self._is_cut_off() + json.dumps(line).encode() + b"\n")

    def _is_cut_off(self) -> bool:
        """Whether the last line lacks its end: its writer was killed."""
        with self._path.open("rb") as file:
            size = file.seek(0, 2)
            return size > 0 and (file.seek(size - 1), file.read(1))[1] != b"\n"

    def _note(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            if found["request"] == self._request:
                self._lines[found["name"]] = {key: found[key] for key in ("input", "output")}
        except (ValueError, KeyError, TypeError):
            return  # cut off by a kill


def sha256(data: bytes) -> str:
    """The digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
