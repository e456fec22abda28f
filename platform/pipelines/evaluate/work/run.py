"""Scores what is missing: in this process, on the workers of Ray, or first here and then there."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from derain import cluster
from derain.evaluation import own_metric
from derain.pipelines.evaluate.work.records import Record
from derain.pipelines.evaluate.work.scorer import Chunk, Scorer, Task
from derain.pipelines.evaluate.work.workers import score_on_workers
from derain.pipelines.plugins_on_nodes import check_plugins_on_nodes
from derain.pipelines.workers.plan import peak_bytes, plan_workers
from derain.storage.amounts import counted
from derain.storage.cores import available_cores

log = logging.getLogger(__name__)

FIRST_S = 5.0
"""`auto` decides after this many seconds, and after an image."""
WORTH_S = 20.0
"""Ray is started for work that would take longer in this process; starting it takes 5 to 10 s."""

Work = tuple[int, str]
"""One method, by its number, on one dataset, by its name."""


@dataclass
class Cost:
    """What an evaluation took: images scored now, seconds, processes, the largest one's memory."""

    images: int = 0
    seconds: float = 0.0
    workers: int = 1
    peak_memory_bytes: int = 0

    @property
    def images_per_s(self) -> float:
        """The images that were scored now, by the seconds since the first was begun."""
        return self.images / self.seconds if self.seconds else 0.0


def score(
    task: Task, missing: Mapping[Work, list[int]], workers: int | None, device: str, cost: Cost
) -> Iterator[tuple[Work, Record]]:
    """The records of the missing images, in any order; fills in `cost`.

    With one worker in this process, with more on Ray. With `None`: on the cluster at RAY_ADDRESS if
    that is set; else here, unless Ray would have more to work with than this process and what
    remains after FIRST_S would take longer than WORTH_S.
    """
    began = time.monotonic()
    left = {work: list(numbers) for work, numbers in missing.items() if numbers}
    here = workers == 1 or (workers is None and not os.environ.get("RAY_ADDRESS"))
    try:
        if here:
            for work, record in _here(task, left, on_to_ray=workers is None):
                cost.images += 1
                yield work, record
            cost.peak_memory_bytes = peak_bytes()
        if any(left.values()):
            for work, record in _on_workers(task, left, workers, device, cost, known=here):
                cost.images += 1
                yield work, record
    finally:
        cost.seconds = time.monotonic() - began


def _here(
    task: Task, left: dict[Work, list[int]], *, on_to_ray: bool
) -> Iterator[tuple[Work, Record]]:
    """Score in this process and take what is done from `left`; with `on_to_ray`, leave the rest if
    Ray is worth its start."""
    total, done, began = sum(map(len, left.values())), 0, time.monotonic()
    threads = max(1, available_cores() - 1)
    with Scorer(task, threads) as scorer:
        for method, name in list(left):
            numbers = left[method, name]
            for record in scorer.records(Chunk(method, name, tuple(numbers))):
                numbers.remove(record.number)
                done += 1
                yield (method, name), record
                passed = time.monotonic() - began
                if on_to_ray and passed > FIRST_S:
                    on_to_ray = False
                    if passed / done * (total - done) > WORTH_S and _ray_has_more(task):
                        return


def _ray_has_more(task: Task) -> bool:
    """Whether this machine has more than this process uses: several GPUs, or several cores."""
    if any(method.device == "cuda" for method in task.methods):
        return torch.cuda.device_count() > 1
    return available_cores() > 1


def _on_workers(
    task: Task,
    left: dict[Work, list[int]],
    asked: int | None,
    device: str,
    cost: Cost,
    *,
    known: bool,
) -> Iterator[tuple[Work, Record]]:
    """Score on Ray; `known`: this process has scored some, so that their memory is known."""
    with cluster.connected():
        check_plugins_on_nodes(dict.fromkeys(task.own, own_metric.KEY))
        workers = plan_workers(asked, device, peak_bytes() if known else None)
        total = sum(map(len, left.values()))
        cost.workers = workers.count
        log.info("evaluate: %s on %s", counted(total, "image"), counted(workers.count, "worker"))
        for scored in score_on_workers(task, left, workers):
            cost.peak_memory_bytes = max(cost.peak_memory_bytes, scored.peak_bytes)
            for record in scored.records:
                yield (scored.chunk.method, scored.chunk.dataset), record
