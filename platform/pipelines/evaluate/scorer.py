"""Scores images of datasets in one process: metrics are computed while the network runs."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch

from derain.config.data import DataConfig
from derain.data.loading.cache import Pixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared
from derain.errors import DerainError
from derain.evaluation.scoring import score_image, too_small
from derain.pipelines.evaluate.methods import Method
from derain.pipelines.evaluate.records import Record, values_of

AHEAD = 4
"""Images per scoring thread that may wait for their metrics, each with three arrays of pixels."""


@dataclass(frozen=True)
class Task:
    """What an evaluation computes; Ray sends it to every worker."""

    methods: tuple[Method, ...]
    datasets: Mapping[str, Prepared]
    protocols: tuple[str, ...]


@dataclass(frozen=True)
class Chunk:
    """Some images: one method on numbers of one dataset."""

    method: int
    dataset: str
    numbers: tuple[int, ...]


class Scorer:
    """Scores chunks of a task; a context manager, because it has threads.

    The network runs in the thread that asks for records, on one core: the bits of its output depend
    on the number of torch's threads (Restormer's differ between one and two), so that number is the
    same in every process of every evaluation. Metrics are computed in threads of their own, which
    numpy and scipy let run beside the network.
    """

    def __init__(self, task: Task, threads: int = 1) -> None:
        """`threads` compute metrics."""
        self._task = task
        self._ahead = AHEAD * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="metrics")
        self._network = threading.Lock()
        self._opened: dict[str, _Images | DerainError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def records(self, chunk: Chunk) -> Iterator[Record]:
        """The records of a chunk, in the order of its numbers.

        An image that cannot be scored has a record with the reason.
        """
        waiting: deque[Record | Future[Record]] = deque()
        for number in chunk.numbers:
            waiting.append(self._begin(chunk, number))
            while waiting and (len(waiting) > self._ahead or _is_done(waiting[0])):
                yield _result(waiting.popleft())
        yield from map(_result, waiting)

    def images(self, dataset: str) -> "_Images":
        """The images of a dataset. Raises DerainError if they cannot be read."""
        if dataset not in self._opened:
            try:
                prepared = self._task.datasets[dataset]
                self._opened[dataset] = _Images(prepared, self._task.protocols)
            except DerainError as error:
                self._opened[dataset] = error
        found = self._opened[dataset]
        if isinstance(found, DerainError):
            raise found
        return found

    def _begin(self, chunk: Chunk, number: int) -> Record | Future[Record]:
        """Derain an image now, and compute its metrics meanwhile."""
        key = str(self._task.datasets[chunk.dataset].index.column("key")[number])
        try:
            pair = self.images(chunk.dataset).pair(number)
            with self._network, one_thread():
                began = time.perf_counter()
                levels = self._task.methods[chunk.method].levels(chunk.dataset, key, pair[0])
                seconds = time.perf_counter() - began
        except DerainError as error:
            return Record(number, key, reason=str(error))
        return self._pool.submit(self._scored, Record(number, key, seconds), pair, levels)

    def _scored(self, record: Record, pair: np.ndarray, levels: np.ndarray) -> Record:
        number, key, seconds = record.number, record.key, record.seconds
        try:
            scores = {
                protocol: score_image(levels, key, pair, protocol)
                for protocol in self._task.protocols
            }
        except DerainError as error:
            return Record(number, key, reason=str(error))
        return Record(number, key, seconds, values_of(scores))


class _Images:
    """The pairs of a dataset as pixels, and which of them cannot be scored."""

    def __init__(self, dataset: Prepared, protocols: Sequence[str]) -> None:
        self._small = too_small(dataset, protocols)
        self.pixels: Pixels
        (self.pixels,) = open_all_pixels([dataset], DataConfig.model_validate({}))

    def pair(self, number: int) -> np.ndarray:
        """The rainy and the clean image: uint8 (2, height, width, 3).

        Raises DerainError for a pair that cannot be read, or is too small for a protocol.
        """
        if number in self._small:
            raise DerainError(self._small[number])
        pair = self.pixels[number]
        if number in self.pixels.left_out:  # `pair` is another one
            raise DerainError(self.pixels.left_out[number])
        return pair


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one core of the CPU during the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_done(item: Record | Future[Record]) -> bool:
    return isinstance(item, Record) or item.done()


def _result(item: Record | Future[Record]) -> Record:
    return item if isinstance(item, Record) else item.result()
