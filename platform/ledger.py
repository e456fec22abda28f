"""ledger.jsonl of a run: which samples each step consumed, one line a step and rank."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from derain.parallel import Rank

LEDGER = "ledger.jsonl"
Write = Callable[[int, int, np.ndarray], None]
"""Called with the step (from 0), the epoch and the sample ids that this rank consumed."""


@contextlib.contextmanager
def opened(run: Path, first: int, rank: Rank) -> Iterator[Write]:
    """A run's ledger, which begins again at step `first`: it tells the surviving lineage only."""
    path = run / LEDGER
    if rank.leads:
        _truncate(path, first)
    rank.barrier()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(step: int, epoch: int, ids: np.ndarray) -> None:
        line = {"step": step, "epoch": epoch, "rank": rank.number, "ids": ids.tolist()}
        os.write(handle, (json.dumps(line) + "\n").encode())

    try:
        yield write
    finally:
        os.close(handle)


def _truncate(path: Path, first: int) -> None:
    """Keep the lines of the steps before `first`; one that a kill has torn goes, too."""
    kept = ""
    if first and path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = (line for line in lines if line.endswith("\n"))
        kept = "".join(line for line in whole if json.loads(line)["step"] < first)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(kept, encoding="utf-8")
    temporary.replace(path)
