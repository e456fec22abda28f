"""Estimates the time, GPU-hours, memory and disk space of a run or a sweep.

A few steps and one image are timed where the trials would run.
"""

import itertools
import logging
import math
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import ray
import torch

from derain.config import Config
from derain.data.loading.loader import Batch, Position
from derain.data.prepared.roles import open_test, open_validation
from derain.errors import DerainError
from derain.inference.predictor import Predictor
from derain.pipelines import nodes
from derain.pipelines.nodes import WAIT_LINE_EVERY_S
from derain.pipelines.train.checks import caches_bytes, checkpoints_bytes, existing
from derain.pipelines.train.workers import needs, uses_gpu
from derain.storage.refusals import expected
from derain.training.cohort import timing_shared
from derain.training.factory import build_network, loss_of, without_pretrained
from derain.training.process.device import pick_device, to_device
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer
from derain.tune.search.asha import rungs_of

log = logging.getLogger(__name__)

IMAGE_SIZE_PX = (321, 481)
"""Height and width of a BSD image, the most common size in rain datasets."""
START_S = 15.0
"""Start of a worker: importing torch and open_clip, building the network (measured: 10 to 20 s)."""
TIMING_S, MOST_TIMED = 3.0, 20
"""Seconds and calls after which timing stops."""


@dataclass(frozen=True)
class Pace:
    """Measured speed of one trial, and the memory of its process."""

    seconds_per_step: float
    seconds_per_image: float
    memory_bytes: int = 0
    """On a GPU the memory of that, else of the machine; crops of the first stage, one process."""
    shared: float = 0.0
    """The share of a step that the trials of a cohort would compute once, see `cohorts.size_of`."""

    def seconds(self, *, steps: int, images: int) -> float:
        """Seconds that one running worker takes to train `steps` and to score `images`."""
        return images * self.seconds_per_image + steps * self.seconds_per_step


UNKNOWN = dict.fromkeys(
    (
        "seconds",
        "gpu_hours",
        "steps",
        "disk_bytes",
        "cache_bytes",
        "free_bytes",
        "memory_bytes",
        "cost",
    )
)
"""An estimate of what nothing is known of."""

SHARED_STEPS = 3
"""That are timed again for the share of the frozen modules."""


def estimate(
    config: Config, at_once: int, trials: int, price_per_hour: float | None = None
) -> dict[str, Any]:
    """Steps, seconds, GPU-hours and bytes of `trials` trials of a sweep, `at_once` at a time.

    `shared` is the share of a step that cohorts save, see `Pace`.

    For ASHA, every rung is assumed to promote its exact share. `price_per_hour` is that of a GPU,
    or of the machine for trials without one.
    """
    assert config.sweep is not None
    pace, pairs = _pace(config), _validation_pairs(config)
    steps = total_steps(config, trials)
    busy = pace.seconds(steps=steps, images=trials * pairs * _validations(config))
    # The last round may have fewer trials than workers.
    idle_factor = math.ceil(trials / at_once) / (trials / at_once)
    seconds = START_S + busy / at_once * idle_factor
    share = config.sweep.gpu_fraction if uses_gpu(config) else 0
    log.info(
        "sweep: about %.0f min (%.0f ms per step, %d at once)",
        max(1, seconds / 60), pace.seconds_per_step * 1000, at_once,
    )  # fmt: skip
    gpu_hours = share * config.train.max_workers * busy / 3600
    return {
        "steps": steps,
        "seconds": seconds,
        "gpu_hours": gpu_hours,
        "disk_bytes": trials * checkpoints_bytes(config),
        **_machine(config, pace),
        "cost": _cost(price_per_hour, gpu_hours, seconds),
        "shared": pace.shared,
    }


def estimate_run(
    config: Config, done: int = 0, price_per_hour: float | None = None
) -> dict[str, Any]:
    """The same of one run, from step `done` on."""
    workers = config.train.max_workers
    pace = _pace(_with_shared_cores(config))
    steps = max(0, config.train.steps - done)
    images = _validation_pairs(config) * _validations(config) / workers + _test_pairs(config)
    seconds = START_S + pace.seconds_per_step * steps + pace.seconds_per_image * images
    gpu_hours = workers * seconds / 3600 if uses_gpu(config) else 0.0
    return {
        "steps": steps,
        "seconds": seconds,
        "gpu_hours": gpu_hours,
        "disk_bytes": checkpoints_bytes(config),
        **_machine(config, pace),
        "cost": _cost(price_per_hour, gpu_hours, seconds),
    }


def _machine(config: Config, pace: Pace) -> dict[str, Any]:
    """What is needed of this machine, and what its disk has."""
    free = shutil.disk_usage(existing(config.folder)).free
    return {
        "cache_bytes": caches_bytes([config]),
        "free_bytes": free,
        "memory_bytes": pace.memory_bytes,
    }


def _cost(price_per_hour: float | None, gpu_hours: float, seconds: float) -> float | None:
    if price_per_hour is None:
        return None
    return price_per_hour * (gpu_hours or seconds / 3600)


def _validations(config: Config) -> int:
    """How often a run scores its validation images: while it trains, and at its end."""
    every = config.train.eval_every_steps
    return 1 + (config.train.steps // every if every else 0)


def _with_shared_cores(config: Config) -> Config:
    """The config with the threads that each worker of a run will have."""
    cores = int(max((node.cpus for node in nodes.nodes()), default=1))
    threads = config.train.cpu_threads or max(1, cores // config.train.max_workers)
    return config.replaced({"train.cpu_threads": threads}, "estimate")


def total_steps(config: Config, trials: int) -> int:
    """Total training steps of all trials."""
    assert config.sweep is not None
    if config.sweep.search != "asha":
        return trials * config.train.steps
    rungs = (0, *rungs_of(config))
    shares = (config.sweep.asha.keep_one_in**k for k in itertools.count())
    return sum(
        math.ceil(trials / share) * (rung - before)
        for (before, rung), share in zip(itertools.pairwise(rungs), shares, strict=False)
    )


def _pace(config: Config) -> Pace:
    cpus, gpus = (min(1, math.ceil(need)) for need in needs(config))
    task = ray.remote(_measure).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
    timed = task.remote(config.model_dump(mode="json"))
    while not ray.wait([timed], timeout=WAIT_LINE_EVERY_S)[0]:
        log.info(
            "still timing a few steps, or waiting for %d CPU cores and %d GPUs on one "
            "machine to do so: %s", cpus, gpus, nodes.listed(),
        )  # fmt: skip
    try:
        return Pace(*ray.get(timed))
    except ray.exceptions.RayTaskError as error:
        raise expected(error) or DerainError(
            f"It cannot run here; timing a few steps failed: {error.cause}"
        ) from error


def _measure(tree: dict[str, Any]) -> tuple[Any, ...]:
    return astuple(measure(Config.model_validate(tree)))


def _validation_pairs(config: Config) -> int:
    if not config.data.train and config.data.synthetic is not None:
        return config.data.synthetic.validation_pairs
    return sum(map(len, open_validation(config.data)))


def _test_pairs(config: Config) -> int:
    if not config.data.train and config.data.synthetic is not None:
        return config.data.synthetic.test_pairs
    return sum(map(len, open_test(config.data)))


def measure(config: Config) -> Pace:
    """Time a few steps on noise, without loading pretrained weights, which do not affect the time.

    The learning rate is set to 1e-12, so a rate at which a trial diverges does not fail the timing.
    """
    values = {"train.steps": 100, "train.lr": 1e-12}
    config = without_pretrained(config).replaced(values, "estimate")
    torch.set_num_threads(config.train.cpu_threads or 1)
    network = build_network(config)
    device = pick_device(config.train)
    loss = loss_of(config, network)
    trainer = Trainer(config, network, loss, device=device, rank=Rank())
    batch = to_device(_noise(config), config.train)

    def step(number: int) -> float:
        return trainer.step(number, batch)["loss"].item()

    per_step = _median_seconds(step)
    began = time.perf_counter()
    with timing_shared((network, loss), batch) as spent:
        for number in range(SHARED_STEPS):
            step(MOST_TIMED + number)
    shared = sum(spent) / (time.perf_counter() - began)
    image = np.zeros((*IMAGE_SIZE_PX, 3), np.uint8)
    predictor = Predictor(network, device)
    per_image = _median_seconds(lambda _: predictor.derain(image))
    return Pace(per_step, per_image, _memory_bytes(device), shared)


def _memory_bytes(device: torch.device) -> int:
    """The most memory that this process has used so far: of the GPU, or else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _noise(config: Config) -> Batch[np.ndarray]:
    """A batch of the largest share that a worker has: uint8 noise, NHWC."""
    side = config.train.crop_px
    share = -(-config.train.batch_size // config.train.max_workers)
    shape = (share, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    ids = np.arange(shape[0])
    return Batch(images[0], images[1], ids, share=1.0, following=Position())


def _median_seconds(function: Callable[[int], object]) -> float:
    """Median seconds of up to `MOST_TIMED` calls, after one warm-up call."""
    function(0)
    times: list[float] = []
    while sum(times) < TIMING_S and len(times) < MOST_TIMED:
        start = time.perf_counter()
        function(len(times) + 1)
        times.append(time.perf_counter() - start)
    return float(np.median(times))
