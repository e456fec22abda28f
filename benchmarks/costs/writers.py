"""So many processes that record metrics in one sqlite file at once, each by a run's own outbox."""

import multiprocessing
import os
import time
from pathlib import Path

from benchmarks.costs.line import Values
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store

POINTS = 3000
"""Of each writer, three metrics a step."""


def measure(writers: int, folder: Path) -> Values:
    """From the first point until all are in the store."""
    uri = prepare_store(f"sqlite:///{folder}/mlflow.db")
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(writers + 1)
    processes = [
        context.Process(target=_write, args=(uri, folder / str(number), begin))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    begin.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - began
    assert [process.exitcode for process in processes] == [0] * writers
    return {f"{POINTS:,} points of each in the store, s": seconds}


def _write(uri: str, folder: Path, begin: "multiprocessing.synchronize.Barrier") -> None:
    with RunLog(f"run-{os.getpid()}", uri=uri, outbox=folder) as record:
        record.flush(60)
        begin.wait()
        for step in range(POINTS // 3):
            record.metrics(step, {"loss": 1.0, "lr": 1e-3, "steps_per_s": 10.0})
