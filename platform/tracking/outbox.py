"""Records for a store that may be unreachable, kept on disk until a thread has sent them.

Knows nothing of MLflow: the sender interprets the records.

    put(record)  ->  a line in a file  ->  the thread sends it  ->  the file is emptied

A record may be sent twice (if the process dies in between), so sending it again must do no harm.
A killed process leaves its file unlocked; the next outbox with the same name in the same folder
takes it over.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from derain.storage.lines import append_whole
from derain.storage.locks import try_lock

log = logging.getLogger(__name__)

Record = dict[str, Any]
"""JSON-serialisable values."""
Send = Callable[[Sequence[Record]], int]
"""Sends one or more records from the start of the sequence and returns how many are done with.
Raises on a temporary failure: the records are sent again later."""

OUTBOX_FOLDER = "tracking"
"""Sub-folder of a run's folder that holds its outbox."""
SUFFIX = ".spool"
SEND_EVERY_S = 5.0
SEND_AT = 100
RETRY_S = (0.5, 10.0)
"""Pause after the first of several failures in a row, and its limit: it doubles each time."""


class Outbox:
    """Sends records in a thread of its own; its methods are for one other thread."""

    def __init__(
        self, folder: Path, name: str, send: Send, *, give_up_after: int | None = None
    ) -> None:
        """Start with the records that earlier outboxes of this name left in the folder.

        `flush` and `close` stop waiting after `give_up_after` failures in a row, if given.
        """
        self._send = send
        self._give_up_after = give_up_after
        self._failures = 0
        """In a row, since `flush` was called."""
        self.last_error: Exception | None = None
        self._pending: list[Record] = []
        self._sent = 0
        self._changed = threading.Condition()
        self._flushing = self._closing = self._retry_now = False
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.{os.getpid()}-{time.monotonic_ns()}{SUFFIX}"
        self._file = self.path.open("ab", buffering=0)
        try_lock(self._file)  # no other process uses this name
        for record in _take_over(folder, name, self.path):
            self.put(record)
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"outbox {name}")
        self._thread.start()

    def put(self, record: Record) -> None:
        """Keep a record until it is sent; never waits for the store.

        After an OSError, as of a full disk, nothing of the record is kept.
        """
        with self._changed:
            append_whole(self._file.fileno(), (json.dumps(record) + "\n").encode())
            self._pending.append(record)
            if len(self._pending) >= SEND_AT:
                self._changed.notify_all()

    def flush(self, timeout_s: float, limit_s: float | None = None) -> bool:
        """Send everything now; False if that did not succeed in time.

        With `limit_s`, `timeout_s` begins anew with everything that is sent, until `limit_s` are
        over: a slow store is waited for longer than one that is away.
        """
        ends = time.monotonic() + (timeout_s if limit_s is None else limit_s)
        with self._changed:
            self._failures = 0
            self._flushing = self._retry_now = True
            self._changed.notify_all()
            while self._pending and self._wait_for_one(min(timeout_s, ends - time.monotonic())):
                pass
            self._flushing = False
            return not self._pending

    def _wait_for_one(self, timeout_s: float) -> bool:
        """Wait until something more is sent; False if it takes longer, or the store refuses it."""
        before = self._sent
        return (
            self._changed.wait_for(lambda: self._sent > before or self._gave_up(), timeout_s)
            and not self._gave_up()
        )

    def _gave_up(self) -> bool:
        return self._give_up_after is not None and self._failures >= self._give_up_after

    def close(self, timeout_s: float, limit_s: float | None = None) -> int:
        """`flush` and stop; returns how many records stay in the file for lack of time."""
        try:
            self.flush(timeout_s, limit_s)
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
                unsent = len(self._pending)
                # Under the lock, as the thread empties the file under the same lock.
                if not unsent:
                    self.path.unlink(missing_ok=True)
                self._file.close()
        return unsent

    def _run(self) -> None:
        pause = RETRY_S[0]
        while self._wait_until_due():
            try:
                self._send_pending()
                pause = RETRY_S[0]
            except Exception as error:
                if pause == RETRY_S[0]:
                    log.warning(
                        "the store does not accept records at the moment; they are kept and sent "
                        "again later: %s", error,
                    )  # fmt: skip
                with self._changed:
                    self.last_error = error
                    self._failures += 1
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closing or self._retry_now, pause)
                    self._retry_now = False
                pause = min(2 * pause, RETRY_S[1])

    def _wait_until_due(self) -> bool:
        """Wait for a flush, `SEND_AT` records or `SEND_EVERY_S`; False once the outbox closes."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._flushing or len(self._pending) >= SEND_AT,
                SEND_EVERY_S,
            )
            return not self._closing

    def _send_pending(self) -> None:
        with self._changed:
            records = list(self._pending)
        while records:
            sent = self._send(records)
            del records[:sent]
            with self._changed:
                del self._pending[:sent]
                self._sent += sent
                self._failures = 0
                if self._closing:
                    return
                if not self._pending:
                    self._file.truncate(0)
                self._changed.notify_all()


def unsent_names(folder: Path) -> list[str]:
    """Names of the outboxes in a folder that hold records and that no process has open."""
    names = set()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        file = _open_locked(path) if path.is_file() else None  # to open a pipe may take forever
        if file is not None:
            file.close()
            if path.stat().st_size:
                names.add(path.name.split(".")[0])
    return sorted(names)


def _open_locked(path: Path) -> BinaryIO | None:
    """The file, opened to append and locked; None if another process holds the lock."""
    file = path.open("ab")
    if try_lock(file):
        return file
    file.close()
    return None


def _take_over(folder: Path, name: str, own: Path) -> Iterator[Record]:
    """Yield the records that dead outboxes of this name left, and delete each file afterwards."""
    for path in sorted(folder.glob(f"{name}.*{SUFFIX}")):
        file = None if path == own or not path.is_file() else _open_locked(path)
        if file is None:
            continue
        with file:
            lines = path.read_bytes().splitlines()
            records = [record for line in lines if (record := _parse(line)) is not None]
            if len(records) < len(lines):  # the process was killed while writing it
                lost = len(lines) - len(records)
                log.warning(
                    "%s: left out, as they are damaged: %d of %d records", path, lost, len(lines)
                )
            yield from records
            path.unlink()


def _parse(line: bytes) -> Record | None:
    """The record of a line; None for a damaged one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
