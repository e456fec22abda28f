"""Records on their way to a store that may be away: kept on disk until a thread has sent them.

Knows nothing of MLflow: what a record means is the sender's matter.

    put(record)  ->  a line in a file  ->  the thread sends it  ->  the file is emptied

A record may be sent twice (the process died in between), so sending must not mind. Whoever is
killed leaves a file that nobody holds; the next spool of that name in the folder takes it over.
"""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from derain.storage.locks import try_lock

log = logging.getLogger(__name__)

Record = dict[str, Any]
"""What JSON can hold."""
Send = Callable[[Sequence[Record]], int]
"""Sends records from the first one on; returns how many of them are done with. Raises what may
pass: they are sent again later."""

SEND_EVERY_S = 5.0
SEND_AT = 100
RETRY_S = (0.5, 10.0)
"""Pause after the first failure in a row, doubled up to the longest."""
SUFFIX = ".spool"


class Spool:
    """Belongs to one thread, beside the one that sends."""

    def __init__(self, folder: Path, name: str, send: Send) -> None:
        """Begin with what earlier spools of this name left in the folder."""
        self._send = send
        self._waiting: list[Record] = []
        self._changed = threading.Condition()
        self._hurry = self._closing = False
        self._sending = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.{os.getpid()}-{time.monotonic_ns()}{SUFFIX}"
        file = _held(self.path)
        assert file is not None  # nobody else knows the name
        self._file = file
        for record in _taken_over(folder, name, self.path):
            self.put(record)
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"spool {name}")
        self._thread.start()

    def put(self, record: Record) -> None:
        """Keep a record until it is sent; never waits for the store."""
        with self._changed:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            self._waiting.append(record)
            if len(self._waiting) >= SEND_AT:
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Send all now; False when that did not succeed in time."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._waiting, timeout_s)
            self._hurry = False
            return done

    def close(self, timeout_s: float) -> int:
        """Send all and end; returns how many records stay in the file because time ran out."""
        try:
            self.flush(timeout_s)
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
                left = len(self._waiting)
                # Under the lock: the thread empties the file only while it holds that, too.
                if not left:
                    self.path.unlink(missing_ok=True)
                self._file.close()
        return left

    def _work(self) -> None:
        pause = RETRY_S[0]
        while self._due():
            try:
                self._send_once()
                pause = RETRY_S[0]
            except Exception as error:
                if pause == RETRY_S[0]:
                    log.warning("the store takes no records at the moment, they wait: %s", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, pause)
                pause = min(2 * pause, RETRY_S[1])

    def _due(self) -> bool:
        """Wait until there is something to send; False at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._hurry or len(self._waiting) >= SEND_AT, SEND_EVERY_S
            )
            return not self._closing

    def _send_once(self) -> None:
        with self._changed:
            records = list(self._waiting)
        while records:
            sent = self._send(records)
            del records[:sent]
            with self._changed:
                del self._waiting[:sent]
                if self._closing:
                    return
                if not self._waiting:
                    self._file.truncate(0)
                    self._changed.notify_all()


def left_over(folder: Path) -> list[str]:
    """Names of the spools in a folder that nobody holds and that are not empty."""
    names = set()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        handle = _held(path)
        if handle is not None:
            handle.close()
            if path.stat().st_size:
                names.add(path.name.split(".")[0])
    return sorted(names)


def _held(path: Path) -> TextIO | None:
    """The file, opened to append and locked; None where another process holds it."""
    file = path.open("a", encoding="utf-8")
    if try_lock(file):
        return file
    file.close()
    return None


def _taken_over(folder: Path, name: str, own: Path) -> Iterator[Record]:
    """The records that dead spools of this name left; their files go once these are yielded."""
    for path in sorted(folder.glob(f"{name}.*{SUFFIX}")):
        handle = None if path == own else _held(path)
        if handle is None:
            continue
        with handle:
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line that a kill has torn
                    yield json.loads(line)
            path.unlink()
