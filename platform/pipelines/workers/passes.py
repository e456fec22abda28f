"""Chunks of work on the workers of a Ray cluster, with Ray Data, in passes until all are done.

Chunks and results are JSON, so that no pixels pass through Ray. What a worker had in hand when it
died, alone or with its machine, is done in a later pass, on the workers that there is room for by
then: three times in chunks, and then each item alone, so that one item takes no others along.
"""

import contextlib
import json
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import ray.data
from ray.util.annotations import RayDeprecationWarning

from derain.errors import DerainError
from derain.pipelines.workers.plan import Workers
from derain.storage.refusals import expected

log = logging.getLogger(__name__)

CHUNKS_PER_WORKER = 32
"""So that all workers end at about the same time."""
LARGEST_CHUNK = 16
TRIES = 3
"""How often an item whose worker died is done in a chunk, and then alone."""
DIED = (
    f"died {2 * TRIES} times. It was killed, most likely for want of memory (see `dmesg`), or "
    "crashed. Give fewer --workers, or use a machine with more memory"
)

Work = Callable[[Any], Any]
"""From a chunk to its result."""


class Left(Protocol):
    """The items that are left; whoever gets a result takes its items out."""

    def __len__(self) -> int: ...

    def chunks(self, size: int, /) -> list[Any]:
        """All of them, in chunks of at most so many."""
        ...


def in_passes(
    begin: Callable[..., Work], given: Mapping[str, Any], left: Left, workers: Workers, what: str
) -> Iterator[Any]:
    """The results of what is left, in the order in which workers finish it.

    `begin(**given)` makes what does the work, once in each worker; `what` names items in the log,
    such as "evaluate: images". Items that are left at the end have lost their worker every time.
    Raises DerainError for what a machine refuses, RuntimeError with the traceback of a bug.
    """
    for number in range(2 * TRIES):
        if not len(left):
            return
        alone = number >= TRIES
        if number:
            _warn(number, what, len(left))
            workers = workers.still_with_room()
        chunks = left.chunks(1 if alone else chunk_size(len(left), workers.count))
        yield from _pass(begin, given, chunks, workers, alone=alone)


def chunk_size(items: int, workers: int) -> int:
    """Items of a chunk that suits so many workers."""
    return min(LARGEST_CHUNK, max(1, items // (workers * CHUNKS_PER_WORKER)))


def _warn(deaths: int, what: str, count: int) -> None:
    if deaths == TRIES:
        log.warning("%s: the worker of %d died %d times; trying each alone", what, count, deaths)
    elif deaths == 1:
        log.warning(
            "%s: a worker died, or its machine was lost; what it had in hand (%d) is done again. "
            "Killed for want of memory? Then give fewer --workers", what, count,
        )  # fmt: skip


def _pass(
    begin: Callable[..., Work],
    given: Mapping[str, Any],
    chunks: Sequence[Any],
    workers: Workers,
    *,
    alone: bool,
) -> Iterator[Any]:
    """All chunks that a worker holds suffer when it dies, so with `alone` it holds one."""
    rows = [{"chunk": json.dumps(chunk)} for chunk in chunks]
    with _tolerating_deaths(), _without_deprecation():
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                size=min(workers.count, len(rows)),
                max_tasks_in_flight_per_actor=1 if alone else 2,
                max_concurrent_calls_per_actor=2 if workers.gpus and not alone else 1,
                enable_true_multi_threading=workers.gpus > 0,  # of two chunks one is on the GPU
            ),
            fn_constructor_kwargs={"begin": begin, "given": given},
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            memory=workers.memory_bytes,
            max_restarts=-1,
            max_task_retries=0,  # Ray would wait for a new worker, for which there may be no room
        )
        for row in done.iter_rows():
            yield _result(json.loads(row["done"]))


@contextlib.contextmanager
def _without_deprecation() -> Iterator[None]:
    """Ray 2.60 deprecates the only way to say `max_task_retries`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


@contextlib.contextmanager
def _tolerating_deaths() -> Iterator[None]:
    """Ray Data goes on without the chunks of workers that died."""
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
    """Does chunks in a process of Ray's."""

    def __init__(self, begin: Callable[..., Work], given: Mapping[str, Any]) -> None:
        self._work = begin(**given)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ray Data would pass on no more than the text of an exception, and end at none."""
        return {"done": np.array([self._done(text) for text in batch["chunk"]], dtype=object)}

    def _done(self, chunk: str) -> str:
        try:
            return json.dumps({"result": self._work(json.loads(chunk))})
        except Exception as error:
            explained = expected(error)
            reason = str(explained) if explained else traceback.format_exc()
            return json.dumps({"failed": reason, "bug": explained is None})


def _result(done: Mapping[str, Any]) -> Any:
    if "failed" not in done:
        return done["result"]
    if done["bug"]:
        raise RuntimeError(f"A worker failed:\n{done['failed']}")
    raise DerainError(done["failed"])
