"""Write the shards of a plan with Ray Data. Tasks get paths only: no image passes through Ray."""

import logging
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np
import ray
import ray.data

from derain import cluster
from derain.data.prepared.shards import write_shards
from derain.errors import StorageError
from derain.pipelines.prepare import finished_shards
from derain.pipelines.prepare.finished_shards import RENAMED, FinishedPart
from derain.pipelines.prepare.plan import Plan
from derain.pipelines.prepare.shard_names import shard_name, take_back
from derain.pipelines.prepare.task_errors import RUN_AGAIN, explaining_errors
from derain.storage.amounts import counted
from derain.storage.files import is_remote
from derain.storage.in_parallel import in_parallel

log = logging.getLogger(__name__)

BLOCKS_PER_CPU = 4
AT_ONCE = 4
"""Parts that a task has under way if they go to an object store: while some are sent, the core
makes another. Each may have a shard in the folder for temporary files and 55 MB in memory."""


def finished(plan: Plan) -> list[FinishedPart | None]:
    """Every part of the plan; None if it has to be written."""
    marks = enumerate(plan.marks)
    found = in_parallel(lambda it: finished_shards.find(plan.out, *it), marks, plan.out)
    return list(found)


def all_parts(plan: Plan) -> list[FinishedPart]:
    """Every part of the plan, once all were written.

    Raises StorageError if one is missing: its pairs would be, and its rows those of another part.
    """
    found = finished(plan)
    parts = [part for part in found if part is not None]
    if missing := len(found) - len(parts):
        raise StorageError(
            f"{plan.out}: {counted(missing, 'part')} of the dataset, written before, cannot be "
            f"found any more. Look for what removes files there, then {RUN_AGAIN}"
        )
    return parts


def write_missing_shards(plan: Plan, lines: ray.ObjectRef) -> None:
    """Write the parts that are not finished. Raises StorageError if one cannot be written."""
    take_back(plan.out, plan.out / RENAMED)
    parts = finished(plan)
    missing = [number for number, part in enumerate(parts) if part is None]
    kept = sum(len(part.entries) for part in parts if part)
    shards = counted(len(missing), "shard")
    log.info("prepare: writing %s (%d kept) to %s", shards, kept, plan.out)
    if not missing:
        return
    blocks = _blocks(len(missing), cluster.cpus(), AT_ONCE if is_remote(plan.out) else 1)
    rows = [{"number": number} for number in missing]
    tasks = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _write_batch, batch_size=None,
        fn_kwargs={"plan_ref": ray.put(plan), "lines_ref": lines, "at_once": AT_ONCE},
    )  # fmt: skip
    # With reservations Ray Data runs a single task for its first second, until it knows its share
    # of the cluster. Ray itself starts no more tasks than there are cores.
    tasks.context.op_resource_reservation_enabled = False
    for row in tasks.iter_rows():
        if row["failed"]:
            raise StorageError(row["failed"])


def _blocks(parts: int, cpus: int, at_once: int) -> int:
    """Into how many tasks the parts go: several for each core, as some take longer, but a task has
    as many parts as it writes at once, unless cores would be idle."""
    return max(min(parts, cpus), min(parts // at_once, BLOCKS_PER_CPU * cpus))


def _write_batch(
    batch: dict[str, np.ndarray], plan_ref: ray.ObjectRef, lines_ref: ray.ObjectRef, at_once: int
) -> dict[str, np.ndarray]:
    """Write the parts of one task; returns the message of the StorageError that ended it, or "".

    It is returned because Ray Data passes on nothing but a text of a task's exception.
    """
    plan, lines = ray.get([plan_ref, lines_ref])
    failed = ""
    try:
        with explaining_errors():
            write_parts(plan, lines, batch["number"].tolist(), at_once)
    except StorageError as error:
        failed = str(error)
    return {"failed": np.array([failed])}


def write_parts(plan: Plan, lines: np.ndarray, numbers: Sequence[int], at_once: int) -> None:
    """Write some parts of a plan, in an object store `at_once` at a time. Each is recorded after
    its own shards, whatever becomes of the others."""
    deque(in_parallel(partial(_write, plan, lines), numbers, plan.out, at_once), maxlen=0)


def _write(plan: Plan, lines: np.ndarray, number: int) -> None:
    path = plan.out / shard_name(plan.prefix, number)
    pairs = plan.pairs_of(lines, number)
    written = write_shards(pairs, plan.source, path, plan.reading, limits=plan.limits)
    finished_shards.record(plan.out, number, written, plan.marks[number])
