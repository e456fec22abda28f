"""The images that were scored so far, as small Parquet files; a killed evaluation goes on there.

<out>/parts/<identity>/identity.json    what the metrics depend on, one model on one dataset
<out>/parts/<identity>/000000.parquet   images scored by then; the next file has the next ones
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from derain.pipelines.evaluate.work.records import Record, records_in, row_of, table
from derain.storage.atomic import new_file, remove_leftovers, write_text

log = logging.getLogger(__name__)

FOLDER = "parts"
WRITE_EVERY_S = 2.0
"""At most this much work of a killed evaluation is done again, and an image."""


class Parts:
    """The scored images of one model on one dataset, in files that are whole or absent."""

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        """`identity` has everything that the metrics depend on; other work has another folder."""
        text = json.dumps(identity, indent=2, sort_keys=True)
        self._folder = out / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._folder)
        write_text(self._folder / "identity.json", f"{text}\n", durable=False)
        self._files = sorted(self._folder.glob("*.parquet"))
        self._waiting: list[Record] = []
        self._written_at = time.monotonic()

    def read(self) -> dict[int, Record]:
        """The images that earlier calls have scored, by number."""
        found = [record for file in self._files for record in _records(file)]
        return {record.number: record for record in found}

    def add(self, record: Record) -> None:
        """Keep an image that was scored; it is on disk within WRITE_EVERY_S or at `write`.

        One that could not be scored is not kept: the next call tries again.
        """
        if record.reason is None:
            self._waiting.append(record)
        if time.monotonic() - self._written_at >= WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the images that are not on disk yet."""
        if self._waiting:
            number = int(self._files[-1].stem) + 1 if self._files else 0
            file = self._folder / f"{number:06d}.parquet"
            write_table(file, [row_of(record) for record in self._waiting])
            self._files.append(file)
            self._waiting = []
        self._written_at = time.monotonic()


def _records(file: Path) -> list[Record]:
    """The records in a file; none of one that is damaged, whose images are scored again."""
    try:
        return list(records_in(pq.read_table(file)))
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        log.warning("evaluate: %s is damaged, its images are scored again: %s", file, reason)
        return []


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file, which is whole or absent."""
    with new_file(path, durable=False) as file:
        pq.write_table(table(rows), file)
