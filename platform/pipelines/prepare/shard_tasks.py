"""Write the shards of a plan with Ray Data. Tasks get paths only: no image passes through Ray."""

import logging

import numpy as np
import ray
import ray.data

from derain import cluster
from derain.data.prepared.shards import write_shard
from derain.errors import StorageError
from derain.pipelines.prepare import finished_shards
from derain.pipelines.prepare.finished_shards import FinishedShard
from derain.pipelines.prepare.plan import Plan
from derain.pipelines.prepare.task_errors import explaining_errors

log = logging.getLogger(__name__)

BLOCKS_PER_CPU = 4


def finished(plan: Plan) -> list[FinishedShard | None]:
    """Every shard of the plan; None if it has to be written."""
    marks = enumerate(plan.marks)
    return [finished_shards.find(plan.out, number, mark) for number, mark in marks]


def write_missing_shards(plan: Plan, lines: ray.ObjectRef) -> None:
    """Write the shards that are not finished. Raises StorageError if one cannot be written."""
    missing = [number for number, shard in enumerate(finished(plan)) if shard is None]
    kept = len(plan) - len(missing)
    log.info("prepare: writing %d shards (%d kept) to %s", len(missing), kept, plan.out)
    if not missing:
        return
    blocks = min(len(missing), BLOCKS_PER_CPU * cluster.cpus())
    rows = [{"number": number} for number in missing]
    tasks = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _write_batch, batch_size=None, fn_kwargs={"plan_ref": ray.put(plan), "lines_ref": lines}
    )
    # With reservations Ray Data runs a single task for its first second, until it knows its share
    # of the cluster. Ray itself starts no more tasks than there are cores.
    tasks.context.op_resource_reservation_enabled = False
    for row in tasks.iter_rows():
        if row["failed"]:
            raise StorageError(row["failed"])


def _write_batch(
    batch: dict[str, np.ndarray], plan_ref: ray.ObjectRef, lines_ref: ray.ObjectRef
) -> dict[str, np.ndarray]:
    """Write the shards of one task; returns the message of the StorageError that ended it, or "".

    It is returned because Ray Data passes on nothing but a text of a task's exception.
    """
    plan, lines = ray.get([plan_ref, lines_ref])
    failed = ""
    try:
        with explaining_errors():
            for number in batch["number"]:
                _write(plan, lines, int(number))
    except StorageError as error:
        failed = str(error)
    return {"failed": np.array([failed])}


def _write(plan: Plan, lines: np.ndarray, number: int) -> None:
    path = plan.out / f"shard-{number:06d}.tar"
    pairs = plan.pairs_of(lines, number)
    written = write_shard(pairs, plan.source, path, decode=plan.decodes)
    finished_shards.record(plan.out, number, written, plan.marks[number])
