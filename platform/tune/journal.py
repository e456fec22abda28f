"""The journal of a sweep: what was started and what came of it, one JSON line per event.

<sweep>/journal.jsonl    lines are only appended, and are on disk before anything depends on them

    plan       what the sweep is: format version, name, lead of TPE, digests of the datasets, and
               the share of a step that cohorts save
    recorded   the sweep's MLflow run
    started    a segment: its trials with their values, the step where it ends, and the other
               segments in the same cohort
    crashed    the traceback of a process that ended with an error
    retried    a segment failed in a way that may pass, and is run again
    ended      the outcome of each trial of a segment
    resumed    another process took over
    registered which trial was registered, as which model version
    finished   the report is written

A line that was cut short, by a kill or a full disk, counts as not written, wherever it is: the next
line may have been appended to it. Only one process at a time may hold the journal.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from derain.errors import DerainError, OccupiedError, UsageError
from derain.storage.lines import append_whole
from derain.storage.locks import is_held, lock_within

JOURNAL = "journal.jsonl"
VERSION = 1
OPEN_WAITS_S = 0.5
"""Not 0: `derainctl runs` holds the lock for an instant to see whether it is free."""

Event = dict[str, Any]
_BEGINNING = b'{"event": "'
"""How every line begins; within a line its quotation marks would have backslashes."""

_ITEMS = {"started": ("trials", ("name",)), "ended": ("outcomes", ("trial", "status"))}
"""By the name of an event: the key of its list, and the texts that each item of that has."""

log = logging.getLogger(__name__)


class Journal:
    """The journal in a sweep's folder, held by this process from `open` to the end of the block."""

    def __init__(self, folder: Path, handle: int, events: list[Event]) -> None:
        self._folder, self._handle, self.events = folder, handle, events

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Lock the journal of a folder, creating it if needed.

        Raises OccupiedError if another process holds it, UsageError if it cannot be read.
        """
        handle = os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if not lock_within(handle, OPEN_WAITS_S, unsure=True):
            os.close(handle)
            raise OccupiedError(f"{folder}: another process is running this sweep.")
        try:
            text = (folder / JOURNAL).read_bytes()
            os.ftruncate(handle, text.rfind(b"\n") + 1)
            return cls(folder, handle, list(_events(folder, text)))
        except BaseException:
            os.close(handle)  # with the lock
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def write(self, event: str, **values: Any) -> None:
        """Append an event; it is on disk when this returns."""
        line = {"event": event, **values}
        append_whole(self._handle, (json.dumps(line) + "\n").encode())
        os.fsync(self._handle)
        self.events.append(line)

    def first(self, name: str) -> Event | None:
        """The first event with this name, if any."""
        return next((event for event in self.events if event["event"] == name), None)


def is_running(folder: Path) -> bool:
    """Whether a process holds the journal of a sweep."""
    return is_held(folder / JOURNAL)


def started_and_ended(events: Sequence[Event]) -> tuple[dict[str, Event], dict[str, Event]]:
    """By the name of a trial: how it was started last, and its latest outcome if it has one."""
    started = {
        trial["name"]: trial
        for event in events
        if event["event"] == "started"
        for trial in event.get("trials", ())
    }
    ended = {
        outcome["trial"]: outcome
        for event in events
        if event["event"] == "ended"
        for outcome in event.get("outcomes", ())
    }
    return started, ended


def read(folder: Path) -> list[Event]:
    """The events so far, without locking the journal; empty if there is no journal."""
    path = folder / JOURNAL
    return list(_events(folder, path.read_bytes())) if path.is_file() else []


def _events(folder: Path, text: bytes) -> Iterator[Event]:
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return  # cut short by a kill
        event = _parse(line)
        if event is None and line.startswith(_BEGINNING):
            log.warning("%s: line %d was cut short and is left out.", folder / JOURNAL, number)
            event = _parse(line[line.rindex(_BEGINNING) :])  # the next one, appended to it
            if event is None:
                continue
        if event is None or not _is_whole(event):
            raise UsageError(f"{folder / JOURNAL}: line {number} is damaged: {line[:80]!r}.")
        if event.get("version", VERSION) != VERSION:
            raise DerainError(
                f"{folder / JOURNAL}: has format version {event['version']}; this program reads "
                f"version {VERSION}. Resume the sweep with the program that started it."
            )
        yield event


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _is_whole(event: Event) -> bool:
    """Whether the items of an event have what is read of each."""
    key, texts = _ITEMS.get(event["event"], ("", ()))
    items = event.get(key, [])
    return isinstance(items, list) and all(
        isinstance(item, dict) and all(isinstance(item.get(text), str) for text in texts)
        for item in items
    )
