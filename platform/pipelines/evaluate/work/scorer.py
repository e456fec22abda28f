"""Scores images of datasets in one process: metrics are computed while the network runs."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
import torch

from derain.data.prepared.manifest import Prepared
from derain.errors import DataError, DerainError
from derain.evaluation.downstream import found_in
from derain.evaluation.downstream.found import Downstream
from derain.evaluation.lpips import NAME as LPIPS
from derain.evaluation.lpips import Lpips, LpipsFiles
from derain.evaluation.no_reference import METRICS, NoReference
from derain.evaluation.own_metric import build_metric, measured
from derain.evaluation.protocols import PROTOCOLS, quantised
from derain.evaluation.scoring import ImageScores, score_image
from derain.pipelines.evaluate.detectors import DownstreamSpec, load_downstream
from derain.pipelines.evaluate.measures import names_for
from derain.pipelines.evaluate.methods import Method
from derain.pipelines.evaluate.work.images import Images
from derain.pipelines.evaluate.work.records import Record, values_of

AHEAD = 4
"""Images per scoring thread that may wait for their metrics, each with three arrays of pixels."""


@dataclass(frozen=True)
class Task:
    """What an evaluation computes; Ray sends it to every worker."""

    methods: tuple[Method, ...]
    datasets: Mapping[str, Prepared]
    protocols: tuple[str, ...]
    no_reference: tuple[str, ...] = ()
    """Metrics without reference: of all datasets; those without clean images have some anyway."""
    downstream: DownstreamSpec | None = None
    lpips: LpipsFiles | None = None
    own: tuple[str, ...] = ()
    """Metrics of the user's, `module:Name`, of datasets with clean images."""

    def names_for(self, dataset: str) -> tuple[str, ...]:
        """The protocols and other measures that a dataset is measured by."""
        return names_for(
            self.datasets[dataset],
            self.protocols,
            self.no_reference,
            self.own,
            lpips=self.lpips is not None,
        )


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
        self._network, self._opening = threading.Lock(), threading.Lock()
        self._detector: Downstream | None = None
        self._lpips: Lpips | None = None
        self._own = {name: build_metric(name) for name in task.own}
        self._opened: dict[str, Images | DerainError] = {}

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

    def images(self, dataset: str) -> Images:
        """The images of a dataset. Raises DerainError if they cannot be read."""
        with self._opening:
            if dataset not in self._opened:
                self._opened[dataset] = self._open(dataset)
        found = self._opened[dataset]
        if isinstance(found, DerainError):
            raise found
        return found

    def _open(self, dataset: str) -> Images | DerainError:
        try:
            return Images(self._task.datasets[dataset], self._task.protocols)
        except DerainError as error:
            return error

    def _begin(self, chunk: Chunk, number: int) -> Record | Future[Record]:
        """Derain an image now, and compute its metrics meanwhile."""
        key = str(self._task.datasets[chunk.dataset].rows_at([number])["key"][0])
        try:
            rain, clean = self.images(chunk.dataset)[number]
            with self._network, one_thread():
                began = time.perf_counter()
                levels = self._task.methods[chunk.method].levels(chunk.dataset, key, rain)
                seconds = time.perf_counter() - began
                found = self._found(rain, levels, clean)
                lpips = self._lpips_of(key, rain, levels, clean)
        except DerainError as error:
            return Record(number, key, reason=str(error))
        record = Record(number, key, seconds, lpips, found)
        return self._pool.submit(self._scored, chunk.dataset, record, rain, levels, clean)

    def _scored(
        self,
        dataset: str,
        record: Record,
        rain: np.ndarray,
        levels: np.ndarray,
        clean: np.ndarray | None,
    ) -> Record:
        """The record with the metrics, or with the reason why there are none."""
        scores: dict[str, ImageScores] = {}
        try:
            for name in self._task.names_for(dataset):
                if name in METRICS:
                    scores[name] = self._without_reference(name, record.key, rain, levels)
                elif name in self._own and clean is not None:
                    scores[name] = self._by_own(name, record.key, rain, levels, clean)
                elif name in PROTOCOLS and clean is not None:
                    scores[name] = score_image(levels, record.key, (rain, clean), name)
        except DerainError as error:
            return Record(record.number, record.key, reason=str(error))
        return replace(record, values={**values_of(scores), **record.values})

    def _without_reference(
        self, name: str, key: str, rain: np.ndarray, levels: np.ndarray
    ) -> ImageScores:
        measure = NoReference([name])
        try:
            return ImageScores(key, measure(quantised(levels)), measure(rain))
        except DataError as error:
            raise DataError(f"image {key}: {error}") from error

    def _lpips_of(
        self, key: str, rain: np.ndarray, levels: np.ndarray, clean: np.ndarray | None
    ) -> dict[str, float]:
        """LPIPS of the derained and of the rainy image, if it is asked for."""
        files = self._task.lpips
        if files is None or clean is None:
            return {}
        if self._lpips is None:
            device = self._task.methods[0].device
            self._lpips = Lpips(files.backbone, files.heads, device)
        try:
            metrics, given = (
                {LPIPS: self._lpips(image, clean)} for image in (quantised(levels), rain)
            )
        except DataError as error:
            raise DataError(f"image {key}: {error}") from error
        return values_of({LPIPS: ImageScores(key, metrics, given)})

    def _by_own(
        self, name: str, key: str, rain: np.ndarray, levels: np.ndarray, clean: np.ndarray
    ) -> ImageScores:
        metric = self._own[name]
        try:
            values = (measured(metric, name, each, clean) for each in (quantised(levels), rain))
            return ImageScores(key, *values)
        except DataError as error:
            raise DataError(f"image {key}: {error}") from error

    def _found(self, rain: np.ndarray, levels: np.ndarray, clean: np.ndarray | None) -> str | None:
        """What the detector finds, if there is one and a clean image to compare with."""
        spec = self._task.downstream
        if spec is None or clean is None:
            return None
        if self._detector is None:
            self._detector = load_downstream(spec, self._task.methods[0].device)
        return found_in(self._detector, spec.name, rain, quantised(levels), clean)


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
