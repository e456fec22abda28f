"""Ends a process that makes no progress, after writing down where it hangs.

The clock is `faulthandler`'s, a thread in C that does not need the GIL: it also fires during calls
that never release it. A process that is stopped as a whole cannot watch itself; that is detected
from outside (`pipelines/train/worker_failures.py` gives Ray the same limit).
"""

import faulthandler
import time
from pathlib import Path
from typing import Self, TextIO

REARM_INTERVAL_S = 1.0
"""Restarting the clock takes about 0.1 ms, so it is not done at every step."""


class Watchdog:
    """Ends this process with exit code 1 when `beat` is not called for `timeout_s` seconds.

    The end comes at most REARM_INTERVAL_S later. A process has only one such clock.
    """

    def __init__(self, run: Path, rank: int, timeout_s: float) -> None:
        self.stacks = run / f"stacks-rank{rank}.txt"
        self._timeout_s = timeout_s
        self._armed_at = float("-inf")
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        if self.stacks.is_file() and self.stacks.stat().st_size:
            self._keep_earlier_stacks()
        self._file = self.stacks.open("w")
        self.beat()
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        assert self._file is not None
        self._file.close()
        self.stacks.unlink(missing_ok=True)

    def _keep_earlier_stacks(self) -> None:
        """Rename the stacks that an earlier process of this rank wrote before it was ended."""
        stem = self.stacks.stem
        number = 1 + len(list(self.stacks.parent.glob(f"{stem}-*.txt")))
        self.stacks.rename(self.stacks.with_stem(f"{stem}-{number}"))

    def beat(self) -> None:
        """Report progress: restart the clock."""
        now = time.monotonic()
        if now - self._armed_at >= REARM_INTERVAL_S:
            assert self._file is not None
            self._armed_at = now
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)
