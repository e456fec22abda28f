"""Derains on the workers of a Ray cluster, with Ray Data: one process per GPU, or per CPU core.

Workers get paths, read and write the files themselves, and give back what became of each; no pixels
pass through Ray. On a CPU each computes on one thread: the bits of a network's output depend on the
number of torch's threads, and so they do not depend on the number of workers.
"""

import json
import logging
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from torch import nn

from derain import cluster
from derain.errors import DerainError, UsageError
from derain.inference.exported import load_exported
from derain.inference.predictor import MEMORY_SHARE, Predictor, Tile
from derain.pipelines import nodes
from derain.pipelines.evaluate.work.workers import (
    CHUNKS_PER_WORKER,
    LARGEST_CHUNK,
    Workers,
    peak_bytes,
    plan_workers,
    tolerating_deaths,
    without_deprecation,
)
from derain.pipelines.plugins_on_nodes import check_plugins_on_nodes
from derain.pipelines.predict import video
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.record import Writer, file_sha256
from derain.pipelines.predict.work import AHEAD, Outcome, Work
from derain.pipelines.shared_places import check_places
from derain.storage.refusals import expected
from derain.training.process.device import device_named

log = logging.getLogger(__name__)

TRIES = 3
"""How often files whose worker died are derained in chunks, and then each alone."""

Targets = Mapping[str, Path]
"""The files by the names of their results."""


@dataclass(frozen=True)
class Task:
    """What workers derain with, and how they write; Ray sends it to each of them."""

    model: str
    network: nn.Module | None
    """On the CPU; None for an exported file, which each worker loads."""
    weights: str
    """The digest of the network or of the exported file."""
    trust: bool
    stride: int | None
    tile: Tile
    out: Path
    request: str
    form: Form
    compare: bool

    def open(self, device: str, memory_share: float) -> Work:
        """The work of one process. Raises UsageError if this node has another exported file."""
        network = self._exported() if self.network is None else self.network
        predictor = Predictor(network, device_named(device), self.tile, memory_share)
        writer = Writer(self.out, self.request, alone=False)
        return Work(predictor, self.out, writer, self.form, self.compare)

    def _exported(self) -> nn.Module:
        found = file_sha256(Path(self.model))
        if found != self.weights:
            raise UsageError(
                f"{self.model}: a node has another file there. Expected the sha256 {self.weights}, "
                f"found {found}. Use a folder that all nodes mount."
            )
        return load_exported(self.model, trust=self.trust, stride=self.stride)


def derain_on_workers(
    task: Task, targets: Targets, asked: int | None, device: str
) -> Iterator[Outcome]:
    """Derain files on the cluster at RAY_ADDRESS, default: a new local Ray; in the order in which
    workers finish them. With `asked` None on as many workers as fit.

    The files of a worker that dies, alone or with its machine, are derained again when the others
    have been. Those whose worker died every time have that as their reason. Raises UsageError if a
    node does not see the files, or if there is no room for so many workers; DerainError for what a
    machine refuses; RuntimeError with the traceback of a bug.
    """
    with cluster.connected():
        _check_nodes(task, targets)
        computes_on = device if task.network else "cpu"
        # A worker holds the network and the libraries, as this process does by now.
        workers = plan_workers(asked, computes_on, peak_bytes())
        log.info("predict: %d files on %d workers", len(targets), workers.count)
        yield from _derain(task, targets, workers)


def _check_nodes(task: Task, targets: Targets) -> None:
    """Raise UsageError if a node does not see a place, ConfigError if it lacks a user's network."""
    one_of_each_folder = {path.parent: path for path in targets.values()}
    read = [("the images", path) for path in one_of_each_folder.values()]
    if task.network is None:
        read.append(("MODEL", Path(task.model)))
    check_places({"--out": task.out}, read)
    kind = type(task.network)
    if task.network is not None and not kind.__module__.startswith("derain."):
        check_plugins_on_nodes({f"{kind.__module__}:{kind.__name__}": "MODEL"})


def _derain(task: Task, targets: Targets, workers: Workers) -> Iterator[Outcome]:
    task_ref, left = ray.put(task), dict(targets)
    for tried in range(2 * TRIES):
        if not left:
            return
        if tried:
            _warn(tried, len(left))
            room = nodes.room(workers.cpus, workers.gpus)  # a machine may have gone
            workers = replace(workers, count=max(1, min(workers.count, room)))
        for outcome in _pass(task_ref, left, workers, alone=tried >= TRIES):
            left.pop(outcome.name)
            yield outcome
    for name in left:
        yield Outcome(name, reason=_DIED)


def _warn(deaths: int, files: int) -> None:
    if deaths == TRIES:
        log.warning(
            "predict: the worker of %d files died %d times; trying each alone", files, deaths
        )
    elif deaths == 1:
        log.warning(
            "predict: a worker died, or its machine was lost; its files (%d) are derained again. "
            "Killed for want of memory? Then give fewer --workers", files,
        )  # fmt: skip


_DIED = (
    f"the worker that derained it died {2 * TRIES} times. It was killed, most likely for want of "
    "memory (see `dmesg`), or crashed. Give fewer --workers, a smaller --tile, or use a machine "
    "with more memory"
)


def chunked(targets: Targets, workers: int, *, alone: bool = False) -> list[dict[str, Path]]:
    """Files in chunks whose size suits so many workers, or `alone`; videos first, each alone."""
    videos = {name: path for name, path in targets.items() if video.is_video(path)}
    images = [(name, path) for name, path in targets.items() if name not in videos]
    size = min(LARGEST_CHUNK, max(1, len(images) // (workers * CHUNKS_PER_WORKER)))
    size = 1 if alone else size
    return [
        *({name: path} for name, path in videos.items()),
        *(dict(images[at : at + size]) for at in range(0, len(images), size)),
    ]


def _pass(
    task_ref: ray.ObjectRef, targets: Targets, workers: Workers, *, alone: bool
) -> Iterator[Outcome]:
    """Derain files in chunks. All chunks that a worker holds suffer when it dies, so with `alone`
    it holds one."""
    chunks = chunked(targets, workers.count, alone=alone)
    rows = [{"chunk": json.dumps({n: str(path) for n, path in it.items()})} for it in chunks]
    with tolerating_deaths(), without_deprecation():
        derained = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                size=min(workers.count, len(rows)),
                max_tasks_in_flight_per_actor=1 if alone else 2,
                max_concurrent_calls_per_actor=2 if workers.gpus and not alone else 1,
                enable_true_multi_threading=workers.gpus > 0,  # of two chunks one is on the GPU
            ),
            fn_constructor_kwargs={
                "task_ref": task_ref,
                "device": "cuda" if workers.gpus else "cpu",
                "memory_share": _memory_share(workers),
                "threads": workers.threads,
            },
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            memory=workers.memory_bytes,
            max_restarts=-1,
            max_task_retries=0,  # Ray would wait for a new worker, for which there may be no room
        )
        for row in derained.iter_rows():
            yield from _parsed(json.loads(row["derained"]))


def _memory_share(workers: Workers) -> float:
    """The share of a machine's memory, or of a GPU's, for one of the workers that may be there."""
    if workers.gpus:
        return MEMORY_SHARE
    most = max((node.room(workers.cpus, 0) for node in nodes.nodes()), default=1)
    return MEMORY_SHARE / max(1, min(workers.count, most))


class _Worker:
    """Derains chunks in a process of Ray's."""

    def __init__(
        self, task_ref: ray.ObjectRef, device: str, memory_share: float, threads: int
    ) -> None:
        torch.set_num_threads(1)
        self._task: Task = ray.get(task_ref)
        self._device, self._share = device, memory_share
        self._ahead = max(AHEAD, threads)
        self._opening = threading.Lock()
        self._opened: Work | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ray Data would pass on no more than the text of an exception, and end at none."""
        found = [self._derained(json.loads(text)) for text in batch["chunk"]]
        return {"derained": np.array(found, dtype=object)}

    def _derained(self, chunk: dict[str, str]) -> str:
        targets = {name: Path(path) for name, path in chunk.items()}
        try:
            return json.dumps({"outcomes": [asdict(it) for it in self._outcomes(targets)]})
        except Exception as error:
            explained = expected(error)
            reason = str(explained) if explained else traceback.format_exc()
            return json.dumps({"failed": reason, "bug": explained is None})

    def _outcomes(self, targets: Targets) -> Iterator[Outcome]:
        work = self._work()
        ((name, path), *more) = targets.items()
        if not more and video.is_video(path):
            yield work.derain_video(name, path)
        else:
            yield from work.derain_images(targets, self._ahead)

    def _work(self) -> Work:
        """Opened by the first chunk, which can say why it cannot be."""
        with self._opening:
            if self._opened is None:
                self._opened = self._task.open(self._device, self._share)
            return self._opened


def _parsed(found: dict[str, Any]) -> Sequence[Outcome]:
    if "failed" in found:
        if found["bug"]:
            raise RuntimeError(f"A worker failed:\n{found['failed']}")
        raise DerainError(found["failed"])
    return [Outcome(it["name"], tuple(it["changes"]), it["reason"]) for it in found["outcomes"]]
