"""The journal of a sweep: what was begun and what came of it, one JSON line an event.

<sweep>/journal.jsonl    lines are only ever appended, and are on the disk before anything follows

    plan       what the sweep is: version, trials at once, digest of the space
    recorded   its MLflow run
    started    a segment: its trials with their values and seeds, the step it goes to, and the
               segments that train beside it in one cohort
    crashed    what an attempt at it died of
    retried    it failed in a way that may pass, and comes again
    ended      the outcome of each of its trials
    resumed    another process took over
    registered which trial, as which version
    finished   the report is written

A last line that a kill has torn counts as not written. One process at a time holds the journal.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from derain.errors import DerainError, OccupiedError, UsageError
from derain.storage.locks import try_lock

JOURNAL = "journal.jsonl"
VERSION = 1

Event = dict[str, Any]


class Journal:
    """The journal of a sweep's folder, held by this process from `open` to the block's end."""

    def __init__(self, folder: Path, handle: int, events: list[Event]) -> None:
        self._folder, self._handle, self.events = folder, handle, events

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Take the journal of a folder, empty or not.

        Raises OccupiedError where another process holds it, UsageError where it cannot be read.
        """
        handle = os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if not try_lock(handle):
            os.close(handle)
            raise OccupiedError(f"{folder}: another process runs this sweep at present.")
        text = (folder / JOURNAL).read_bytes()
        os.ftruncate(handle, text.rfind(b"\n") + 1)
        return cls(folder, handle, list(_events(folder, text)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def write(self, event: str, **values: Any) -> None:
        """Append an event; it is on the disk when this returns."""
        line = {"event": event, **values}
        os.write(self._handle, (json.dumps(line) + "\n").encode())
        os.fsync(self._handle)
        self.events.append(line)

    def only(self, event: str) -> Event | None:
        """The event of that name that comes once, if it has come."""
        return next((each for each in self.events if each["event"] == event), None)


def read(folder: Path) -> list[Event]:
    """The events so far, without taking the journal; none where there is no journal."""
    path = folder / JOURNAL
    return list(_events(folder, path.read_bytes())) if path.is_file() else []


def _events(folder: Path, text: bytes) -> Iterator[Event]:
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return  # torn: it was never written
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, Mapping) or "event" not in event:
            raise UsageError(f"{folder / JOURNAL}: line {number} is damaged: {line[:80]!r}.")
        if event.get("version", VERSION) != VERSION:
            raise DerainError(
                f"{folder / JOURNAL}: is of version {event['version']}, not {VERSION}."
            )
        yield dict(event)
