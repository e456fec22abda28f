"""Scores on the workers of a Ray cluster, with Ray Data: one process per GPU, or per CPU core.

Workers get numbers of images and give records back; no pixels pass through Ray.
"""

import contextlib
import json
import logging
import resource
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from ray.actor import ActorHandle

from derain.errors import DerainError, UsageError
from derain.pipelines import nodes
from derain.pipelines.evaluate.work.records import Record
from derain.pipelines.evaluate.work.scorer import Chunk, Scorer, Task
from derain.storage.refusals import expected

log = logging.getLogger(__name__)

CHUNKS_PER_WORKER = 32
"""So that all workers end at about the same time."""
LARGEST_CHUNK = 16
RETRIES = 2
"""How often a chunk is tried again after its worker died."""
MEMORY_MARGIN = 1.25
"""A worker reserves this many times the memory that the first images took."""


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
    began_again: bool
    """Whether the process is a new one, in place of one that died."""


def score_on_workers(task: Task, chunks: Sequence[Chunk], workers: Workers) -> Iterator[Scored]:
    """Score chunks, in the order in which workers finish them.

    A worker that dies is started again and its chunks are scored again. Images whose worker died
    every time get a record with that reason, one by one, so that one image takes no others along.
    Raises DerainError for what the machine refuses, RuntimeError with the traceback of a bug.
    """
    task_ref = ray.put(task)
    missing = {(chunk.method, chunk.dataset, n) for chunk in chunks for n in chunk.numbers}
    for again in (False, True):
        if again and missing:
            log.warning(
                "evaluate: the worker of %d images died %d times; trying each alone",
                len(missing), 1 + RETRIES,
            )  # fmt: skip
            chunks = [Chunk(method, name, (n,)) for method, name, n in sorted(missing)]
        for scored in _pass(task_ref, chunks, workers, queued=1 if again else 2) if missing else ():
            for record in scored.records:
                missing.discard((scored.chunk.method, scored.chunk.dataset, record.number))
            yield scored
    for method, name, number in sorted(missing):
        key = str(task.datasets[name].index.column("key")[number])
        record = Record(number, key, reason=_died(key))
        yield Scored(Chunk(method, name, (number,)), [record], 0, False)


def _died(key: str) -> str:
    return (
        f"image {key}: the worker that scored it died {2 * (1 + RETRIES)} times. It was killed, "
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
    attempts = ray.remote(_Attempts).options(num_cpus=0).remote()
    given = {"task_ref": task_ref, "threads": workers.threads, "attempts": attempts}
    with _tolerating_deaths():
        scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                size=min(workers.count, len(rows)),
                max_tasks_in_flight_per_actor=queued,
                max_concurrent_calls_per_actor=2 if workers.gpus else 1,
                enable_true_multi_threading=workers.gpus > 0,  # of two chunks one is on the GPU
            ),
            fn_constructor_kwargs=given,
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            memory=workers.memory_bytes,
        )
        for row in scored.iter_rows():
            found = json.loads(row["scored"])
            if not found.get("died"):
                yield _parsed(found)


@contextlib.contextmanager
def _tolerating_deaths() -> Iterator[None]:
    """Ray Data goes on without the chunks of workers that could not be started again."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.max_errored_blocks, logger.level
    context.max_errored_blocks = -1
    logger.setLevel(logging.CRITICAL)  # it prints a traceback for each
    try:
        yield
    finally:
        context.max_errored_blocks = before[0]
        logger.setLevel(before[1])


class _Attempts:
    """Counts how often each chunk was begun, in a process of Ray's. Ray Data starts workers again
    and gives them their chunks again, without end."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, chunk: str) -> int:
        """Which attempt this is, from 1."""
        self._begun[chunk] += 1
        return self._begun[chunk]


class _Worker:
    """Scores chunks in a process of Ray's."""

    def __init__(self, task_ref: ray.ObjectRef, threads: int, attempts: ActorHandle) -> None:
        self._scorer, self._attempts = Scorer(ray.get(task_ref), threads), attempts
        self._began_again = ray.get_runtime_context().was_current_actor_reconstructed

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ray Data would pass on no more than the text of an exception, and end at none."""
        found = [self._attempt(text) for text in batch["chunk"]]
        return {"scored": np.array(found, dtype=object)}

    def _attempt(self, chunk: str) -> str:
        if ray.get(self._attempts.begin.remote(chunk)) > 1 + RETRIES:
            return json.dumps({"died": True})
        return self._scored(json.loads(chunk))

    def _scored(self, chunk: dict[str, Any]) -> str:
        about = {"chunk": chunk, "began_again": self._began_again}
        try:
            records = [asdict(record) for record in self._scorer.records(_chunk(chunk))]
        except Exception as error:
            explained = expected(error)
            reason = str(explained) if explained else traceback.format_exc()
            return json.dumps({**about, "failed": reason, "bug": explained is None})
        return json.dumps({**about, "records": records, "peak_bytes": peak_bytes()})


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
    return Scored(_chunk(found["chunk"]), records, found["peak_bytes"], found["began_again"])
