"""Finds a process that makes no more steps: writes down where it hangs, and ends it.

The clock is `faulthandler`'s, a thread in C that needs no GIL: it strikes in calls that never let
go of it. A process that is stopped as a whole cannot watch itself: that is seen from outside
(`pipelines/faults.py` hands Ray the same limit).
"""

import faulthandler
import time
from pathlib import Path
from typing import Self

REARM_EVERY_S = 1.0
"""Starting the clock anew takes about 0.1 ms, so it is not done at every step."""


class Watchdog:
    """Ends this process with exit code 1 when no `beat` comes for `timeout_s` seconds.

    It is found after at most REARM_EVERY_S more. There is one clock a process.
    """

    def __init__(self, run: Path, rank: int, timeout_s: float) -> None:
        self.stacks = run / f"stacks-rank{rank}.txt"
        self._timeout_s = timeout_s
        self._armed = float("-inf")

    def __enter__(self) -> Self:
        if self.stacks.is_file() and self.stacks.stat().st_size:
            self._keep()
        self._file = self.stacks.open("w")
        self.beat()
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self.stacks.unlink(missing_ok=True)

    def _keep(self) -> None:
        """What a process of this rank wrote before it was ended gets a name of its own."""
        stem = self.stacks.stem
        number = 1 + len(list(self.stacks.parent.glob(f"{stem}-*.txt")))
        self.stacks.rename(self.stacks.with_stem(f"{stem}-{number}"))

    def beat(self) -> None:
        """This process makes progress."""
        now = time.monotonic()
        if now - self._armed >= REARM_EVERY_S:
            self._armed = now
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)
