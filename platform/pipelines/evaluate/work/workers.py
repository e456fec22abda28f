"""Scores on the workers of a Ray cluster, with Ray Data: one process per GPU, or per CPU core.

Workers get numbers of images and give records back; no pixels pass through Ray.
"""

import contextlib
import json
import logging
import resource
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from derain.errors import DerainError, UsageError
from derain.pipelines import nodes
from derain.pipelines.evaluate.work.records import Record
from derain.pipelines.evaluate.work.scorer import Chunk, Scorer, Task
from derain.storage.refusals import expected

log = logging.getLogger(__name__)

CHUNKS_PER_WORKER = 32
"""So that all workers end at about the same time."""
LARGEST_CHUNK = 16
TRIES = 3
"""How often images whose worker died are scored in chunks, and then each alone."""
MEMORY_MARGIN = 1.25
"""A worker reserves this many times the memory that the first images took."""

Missing = Mapping[tuple[int, str], Collection[int]]
"""Numbers of images, by the number of a method and the name of a dataset."""


@dataclass(frozen=True)
class Workers:
    """How many processes score, and what each reserves."""

    count: int
    cpus: float
    gpus: float
    memory_bytes: int | None = None

    @property
    def threads(self) -> int:
        """Threads for metrics in each; of a worker with a GPU one core runs the network."""
        return max(1, int(self.cpus) - 1)


def plan_workers(asked: int | None, device: str, memory_bytes: int | None) -> Workers:
    """Workers on the connected cluster: as many as asked for, or as fit.

    With GPUs one for each of them, which gets its share of the machine's cores for the metrics;
    otherwise one for each core, or as many as have `memory_bytes` each. Raises UsageError if more
    are asked for than the cluster has room for.
    """
    on_gpu = device == "cuda" or (device == "auto" and nodes.has_gpus())
    cpus = _cores_per_gpu() if on_gpu else 1.0
    gpus = 1.0 if on_gpu else 0.0
    room = nodes.room(cpus, gpus)
    needs = int(memory_bytes * MEMORY_MARGIN) if memory_bytes and not asked and not on_gpu else None
    if needs:
        room = min(room, max(1, int(ray.cluster_resources().get("memory", 0) // needs)))
        needs = min(needs, int(ray.cluster_resources().get("memory", 0)) // room)
    if asked and not nodes.can_start(asked, cpus=cpus, gpus=gpus):
        raise UsageError(
            f"--workers {asked}: the cluster has room for {room} workers with {cpus:g} CPU cores "
            f"and {gpus:g} GPUs each: {nodes.listed()}. Give fewer, or --workers auto."
        )
    return Workers(asked or max(1, room), cpus, gpus, needs)


def _cores_per_gpu() -> float:
    """Of the machine with the fewest cores for each of its GPUs."""
    shares = [node.cpus // node.gpus for node in nodes.nodes() if node.gpus]
    return max(1.0, min(shares, default=1.0))


@dataclass(frozen=True)
class Scored:
    """What a worker gives back for a chunk."""

    chunk: Chunk
    records: list[Record]
    peak_bytes: int
    """The most memory that its process has held by now."""


def score_on_workers(task: Task, missing: Missing, workers: Workers) -> Iterator[Scored]:
    """Score images, in the order in which workers finish them.

    The images of a worker that dies, alone or with its machine, are scored again when the others
    have been, on the workers that there is room for then. Images whose worker died every time get
    a record with that reason, one by one, so that one image takes no others along. Raises
    DerainError for what the machine refuses, RuntimeError with the traceback of a bug.
    """
    task_ref = ray.put(task)
    left = {work: set(numbers) for work, numbers in missing.items()}
    for number in range(2 * TRIES):
        count = sum(map(len, left.values()))
        if not count:
            return
        alone = number >= TRIES
        if number:
            _warn(number, count)
            workers = replace(workers, count=_still_room_for(workers))
        chunks = [
            chunk
            for (method, name), numbers in left.items()
            for chunk in chunked(
                method, name, sorted(numbers), workers.count, 1 if alone else count
            )
        ]
        for scored in _pass(task_ref, chunks, workers, queued=1 if alone else 2):
            left[scored.chunk.method, scored.chunk.dataset].difference_update(scored.chunk.numbers)
            yield scored
    yield from _given_up(task, left)


def _still_room_for(workers: Workers) -> int:
    """As many of the workers as the cluster has room for now, after a machine may have gone."""
    return max(1, min(workers.count, nodes.room(workers.cpus, workers.gpus)))


def _warn(deaths: int, images: int) -> None:
    if deaths == TRIES:
        log.warning(
            "evaluate: the worker of %d images died %d times; trying each alone", images, deaths
        )
    elif deaths == 1:
        log.warning(
            "evaluate: a worker died, or its machine was lost; its images (%d) are scored again. "
            "Killed for want of memory? Then give fewer --workers", images,
        )  # fmt: skip


def _given_up(task: Task, left: Missing) -> Iterator[Scored]:
    for (method, name), numbers in left.items():
        for number in sorted(numbers):
            key = str(task.datasets[name].rows_at([number])["key"][0])
            record = Record(number, key, reason=_died(key))
            yield Scored(Chunk(method, name, (number,)), [record], 0)


def _died(key: str) -> str:
    return (
        f"image {key}: the worker that scored it died {2 * TRIES} times. It was killed, "
        "most likely for want of memory (see `dmesg`), or crashed. Give fewer --workers, or use a "
        "machine with more memory"
    )


def chunked(
    method: int, dataset: str, numbers: Sequence[int], workers: int, total: int
) -> list[Chunk]:
    """Numbers in chunks whose size suits so many workers and images in all."""
    size = min(LARGEST_CHUNK, max(1, total // (workers * CHUNKS_PER_WORKER)))
    return [
        Chunk(method, dataset, tuple(numbers[at : at + size]))
        for at in range(0, len(numbers), size)
    ]


def _pass(
    task_ref: ray.ObjectRef, chunks: Sequence[Chunk], workers: Workers, *, queued: int
) -> Iterator[Scored]:
    """Score chunks on workers that hold `queued` of them; all of these suffer when one dies."""
    rows = [{"chunk": json.dumps(asdict(chunk))} for chunk in chunks]
    with tolerating_deaths(), without_deprecation():
        scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                size=min(workers.count, len(rows)),
                max_tasks_in_flight_per_actor=queued,
                max_concurrent_calls_per_actor=2 if workers.gpus else 1,
                enable_true_multi_threading=workers.gpus > 0,  # of two chunks one is on the GPU
            ),
            fn_constructor_kwargs={"task_ref": task_ref, "threads": workers.threads},
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            memory=workers.memory_bytes,
            max_restarts=-1,
            max_task_retries=0,  # Ray would wait for a new worker, for which there may be no room
        )
        for row in scored.iter_rows():
            yield _parsed(json.loads(row["scored"]))


@contextlib.contextmanager
def without_deprecation() -> Iterator[None]:
    """Ray 2.60 deprecates the only way to say `max_task_retries`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


@contextlib.contextmanager
def tolerating_deaths() -> Iterator[None]:
    """Ray Data goes on without the chunks of workers that died too often."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.max_errored_blocks, logger.level
    context.max_errored_blocks = -1
    logger.setLevel(logging.CRITICAL)  # it prints a traceback for each
    try:
        yield
    finally:
        context.max_errored_blocks = before[0]
        logger.setLevel(before[1])


class _Worker:
    """Scores chunks in a process of Ray's."""

    def __init__(self, task_ref: ray.ObjectRef, threads: int) -> None:
        self._scorer = Scorer(ray.get(task_ref), threads)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ray Data would pass on no more than the text of an exception, and end at none."""
        found = [self._scored(json.loads(text)) for text in batch["chunk"]]
        return {"scored": np.array(found, dtype=object)}

    def _scored(self, chunk: dict[str, Any]) -> str:
        try:
            records = [asdict(record) for record in self._scorer.records(_chunk(chunk))]
        except Exception as error:
            explained = expected(error)
            reason = str(explained) if explained else traceback.format_exc()
            return json.dumps({"failed": reason, "bug": explained is None})
        return json.dumps({"chunk": chunk, "records": records, "peak_bytes": peak_bytes()})


def peak_bytes() -> int:
    """The most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _chunk(tree: dict[str, Any]) -> Chunk:
    return Chunk(tree["method"], tree["dataset"], tuple(tree["numbers"]))


def _parsed(found: dict[str, Any]) -> Scored:
    if "failed" in found:
        if found["bug"]:
            raise RuntimeError(f"A worker failed:\n{found['failed']}")
        raise DerainError(found["failed"])
    records = [Record(**record) for record in found["records"]]
    return Scored(_chunk(found["chunk"]), records, found["peak_bytes"])
