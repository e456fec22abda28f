"""Derains on the workers of a Ray cluster.

Workers get paths, read and write the files themselves, and give back what became of each. On a CPU
each computes on one thread: the bits of a network's output depend on the number of torch's threads,
and so they do not depend on the number of workers.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from torch import nn

from derain import cluster
from derain.errors import UsageError
from derain.inference.exported import load_exported
from derain.inference.predictor import MEMORY_SHARE, Predictor, Tile
from derain.pipelines import nodes
from derain.pipelines.plugins_on_nodes import check_plugins_on_nodes
from derain.pipelines.predict import video
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.record import Writer, file_sha256
from derain.pipelines.predict.work import AHEAD, Outcome, Turns, Work
from derain.pipelines.shared_places import check_places
from derain.pipelines.workers.passes import DIED, in_passes
from derain.pipelines.workers.plan import Workers, peak_bytes, plan_workers
from derain.storage.amounts import counted
from derain.training.process.device import device_named

log = logging.getLogger(__name__)

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
        one = Turns(at_once=1, threads=1, alone=1)
        return Work(predictor, self.out, writer, self.form, self.compare, one)

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

    Files whose worker died every time have that as their reason. Raises UsageError if a node does
    not see the files, or if there is no room for so many workers, and what `in_passes` does.
    """
    with cluster.connected():
        _check_nodes(task, targets)
        computes_on = device if task.network else "cpu"
        # A worker holds the network and the libraries, as this process does by now.
        workers = plan_workers(asked, computes_on, peak_bytes())
        log.info(
            "predict: %s on %s", counted(len(targets), "file"), counted(workers.count, "worker")
        )
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
    left = Underained(targets)
    given = {
        "task_ref": ray.put(task),
        "device": "cuda" if workers.gpus else "cpu",
        "memory_share": _memory_share(workers),
        "threads": workers.threads,
    }
    for found in in_passes(_Deraining, given, left, workers, "predict: files"):
        for it in found:
            left.take(it["name"])
            yield Outcome(it["name"], tuple(it["changes"]), it["reason"])
    for chunk in left.chunks(1):
        for name in chunk:
            yield Outcome(name, reason=f"the worker that derained it {DIED}, or a smaller --tile")


class Underained:
    """The files that are left, see `passes.Left`."""

    def __init__(self, targets: Targets) -> None:
        self._targets = {name: str(path) for name, path in targets.items()}

    def __len__(self) -> int:
        return len(self._targets)

    def chunks(self, size: int) -> list[dict[str, str]]:
        """Videos first, each alone, then images."""
        videos = {name: path for name, path in self._targets.items() if video.is_video(Path(path))}
        images = [(name, path) for name, path in self._targets.items() if name not in videos]
        return [
            *({name: path} for name, path in videos.items()),
            *(dict(images[at : at + size]) for at in range(0, len(images), size)),
        ]

    def take(self, name: str) -> None:
        """Take out what is done."""
        del self._targets[name]


def _memory_share(workers: Workers) -> float:
    """The share of a machine's memory, or of a GPU's, for one of the workers that may be there."""
    if workers.gpus:
        return MEMORY_SHARE
    most = max((node.room(workers.cpus, 0) for node in nodes.nodes()), default=1)
    return MEMORY_SHARE / max(1, min(workers.count, most))


class _Deraining:
    """Derains chunks in a worker."""

    def __init__(
        self, task_ref: ray.ObjectRef, device: str, memory_share: float, threads: int
    ) -> None:
        self._task: Task = ray.get(task_ref)
        self._device, self._share = device, memory_share
        self._ahead = max(AHEAD, threads)
        self._opening = threading.Lock()
        self._opened: Work | None = None

    def __call__(self, chunk: dict[str, str]) -> list[dict[str, Any]]:
        targets = {name: Path(path) for name, path in chunk.items()}
        return [asdict(outcome) for outcome in self._outcomes(targets)]

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
