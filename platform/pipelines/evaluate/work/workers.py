"""Scores on the workers of a Ray cluster.

Workers get numbers of images and give records back.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import ray

from derain.pipelines.evaluate.work.records import Record
from derain.pipelines.evaluate.work.scorer import Chunk, Scorer, Task
from derain.pipelines.workers.passes import DIED, in_passes
from derain.pipelines.workers.plan import Workers, peak_bytes

Missing = Mapping[tuple[int, str], Collection[int]]
"""Numbers of images, by the number of a method and the name of a dataset."""


@dataclass(frozen=True)
class Scored:
    """What a worker gives back for a chunk."""

    chunk: Chunk
    records: list[Record]
    peak_bytes: int
    """The most memory that its process has held by now."""


def score_on_workers(task: Task, missing: Missing, workers: Workers) -> Iterator[Scored]:
    """Score images, in the order in which workers finish them.

    Images whose worker died every time get a record with that reason. Raises what `in_passes` does.
    """
    left = Unscored(missing)
    given = {"task_ref": ray.put(task), "threads": workers.threads}
    for found in in_passes(_Scoring, given, left, workers, "evaluate: images"):
        chunk = _chunk(found["chunk"])
        left.take(chunk)
        yield Scored(chunk, [Record(**record) for record in found["records"]], found["peak_bytes"])
    for tree in left.chunks(1):
        chunk = _chunk(tree)
        key = str(task.datasets[chunk.dataset].rows_at(chunk.numbers)["key"][0])
        reason = f"image {key}: the worker that scored it {DIED}"
        yield Scored(chunk, [Record(chunk.numbers[0], key, reason=reason)], 0)


class Unscored:
    """The images that are left, see `passes.Left`."""

    def __init__(self, missing: Missing) -> None:
        self._numbers = {work: set(numbers) for work, numbers in missing.items()}

    def __len__(self) -> int:
        return sum(map(len, self._numbers.values()))

    def chunks(self, size: int) -> list[dict[str, Any]]:
        """Chunks of one method and one dataset each, as JSON."""
        return [
            asdict(Chunk(method, dataset, tuple(ordered[at : at + size])))
            for (method, dataset), numbers in self._numbers.items()
            for ordered in [sorted(numbers)]
            for at in range(0, len(ordered), size)
        ]

    def take(self, chunk: Chunk) -> None:
        """Take out what is done."""
        self._numbers[chunk.method, chunk.dataset].difference_update(chunk.numbers)


class _Scoring:
    """Scores chunks in a worker."""

    def __init__(self, task_ref: ray.ObjectRef, threads: int) -> None:
        self._scorer = Scorer(ray.get(task_ref), threads)

    def __call__(self, chunk: dict[str, Any]) -> dict[str, Any]:
        records = [asdict(record) for record in self._scorer.records(_chunk(chunk))]
        return {"chunk": chunk, "records": records, "peak_bytes": peak_bytes()}


def _chunk(tree: dict[str, Any]) -> Chunk:
    return Chunk(tree["method"], tree["dataset"], tuple(tree["numbers"]))
