"""The ledger of a run: which samples each step consumed, one line per step and rank.

    ledger.jsonl            the lines of rank 0
    ledger.rank-001.jsonl   those of rank 1, and so on

Each rank has a file of its own: on NFS lines that several nodes append to one file overwrite each
other.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from derain.storage.atomic import write_text
from derain.storage.lines import append_whole

if TYPE_CHECKING:  # it imports torch.distributed
    from derain.training.process.distributed import Rank

LEDGER = "ledger.jsonl"
LEDGERS = "ledger*.jsonl"
"""Pattern of the files of all ranks."""


class Ledger:
    """Writes one rank's lines; lines of steps that were rolled back or lost are removed."""

    def __init__(self, run: Path, rank: "Rank") -> None:
        self._run, self._rank = run, rank
        self._path = run / (LEDGER if rank.leads else f"ledger.rank-{rank.number:03d}.jsonl")
        self._handle: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def rewind(self, first: int) -> None:
        """Remove the lines of step `first` and later; all ranks must call it."""
        self._close()
        self._rank.barrier()  # all ranks have closed their files
        if self._rank.leads:  # also of ranks that an earlier part of the run had
            for path in {self._path, *self._run.glob(LEDGERS)}:
                keep_before(path, first)
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


def read_ledger(run: Path) -> list[dict[str, Any]]:
    """The lines of all ranks, ordered by step and rank, without lines that are torn."""
    lines = []
    for path in run.glob(LEDGERS):
        for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if text.endswith("\n"):
                    lines.append(json.loads(text))
    return sorted(lines, key=lambda line: (line["step"], line["rank"]))


def keep_before(path: Path, first: int) -> None:
    """Keep only the lines of a JSON-lines file whose step is below `first`; drop torn lines."""
    kept = []
    if first and path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["step"] < first and line.endswith("\n"):
                    kept.append(line)
    write_text(path, "".join(kept), durable=False)
