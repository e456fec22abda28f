"""ledger.jsonl of a run: which samples each step consumed, one line per step and rank."""

import contextlib
import json
import os
from pathlib import Path
from typing import Self

import numpy as np

from derain.storage.atomic import write_text
from derain.storage.lines import append_whole
from derain.training.process.distributed import Rank

LEDGER = "ledger.jsonl"


class Ledger:
    """Writes one rank's lines; lines of steps that were rolled back or lost are removed."""

    def __init__(self, run: Path, rank: Rank) -> None:
        self._path = run / LEDGER
        self._rank = rank
        self._handle: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def rewind(self, first: int) -> None:
        """Remove the lines of step `first` and later; all ranks must call it."""
        self._close()
        self._rank.barrier()  # all ranks have closed the file
        if self._rank.leads:
            keep_before(self._path, first)
        self._rank.barrier()
        self._handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, step: int, epoch: int, ids: np.ndarray) -> None:
        """Record the sample ids that this rank consumed in a step (from 0)."""
        assert self._handle is not None
        line = {"step": step, "epoch": epoch, "rank": self._rank.number, "ids": ids.tolist()}
        append_whole(self._handle, (json.dumps(line) + "\n").encode())

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def keep_before(path: Path, first: int) -> None:
    """Keep only the lines of a JSON-lines file whose step is below `first`; drop torn lines."""
    kept = []
    if first and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] < first and line.endswith("\n"):
                    kept.append(line)
    write_text(path, "".join(kept), durable=False)
