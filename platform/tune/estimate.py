"""How long a sweep will take, and its disk: a few steps and one image, timed where trials run."""

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from torch import nn

from derain.config import Config
from derain.data.loading.loader import Batch, Position
from derain.data.prepared.manifest import open_prepared
from derain.errors import DerainError
from derain.inference.predictor import Predictor
from derain.pipelines.train.verb import expected_error, wants_gpu
from derain.training.factory import build_network, loss_of, without_weights
from derain.training.process.device import pick_device, to_device
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer
from derain.tune.search.asha import rungs_of

log = logging.getLogger(__name__)

IMAGE_SIZE_PX = (321, 481)
"""Height and width of a BSD image, the commonest in rain datasets."""
START_S = 15.0
"""A worker's start: importing torch and open_clip, building the network (measured: 10 to 20 s)."""
ENOUGH_S = 3.0


@dataclass(frozen=True)
class Pace:
    """What was timed and counted."""

    seconds_a_step: float
    seconds_per_image: float
    checkpoint_bytes: int = 0

    def trial_seconds(self, config: Config, eval_pairs: int) -> float:
        """Of one trial in a worker that is there already, its scoring included."""
        steps = config.train.steps * self.seconds_a_step
        return steps + eval_pairs * self.seconds_per_image


def estimate(config: Config, at_once: int, trials: int) -> dict[str, Any]:
    """Steps, seconds, GPU-hours and bytes of so many trials of a sweep, `at_once` together.

    From a few steps timed where a trial would run. ASHA is reckoned as if every rung promoted its
    exact share; the cache of decoded images is not counted.
    """
    assert config.sweep is not None
    pace, pairs = _pace(config), _eval_pairs(config)
    steps = _steps(config, trials)
    busy = trials * pairs * pace.seconds_per_image + steps * pace.seconds_a_step
    per_worker = math.ceil(trials / at_once) / (trials / at_once)  # the last round may be thin
    seconds = START_S + busy / at_once * per_worker
    share = config.sweep.gpu_fraction if wants_gpu(config) else 0
    log.info(
        "sweep: about %.0f min (%.0f ms a step, %d trials at once)",
        max(1, seconds / 60), pace.seconds_a_step * 1000, at_once,
    )  # fmt: skip
    return {
        "steps": steps,
        "seconds": seconds,
        "gpu_hours": share * config.train.max_workers * busy / 3600,
        "disk_bytes": trials * (config.train.keep_checkpoints + 1) * pace.checkpoint_bytes,
    }


def _steps(config: Config, trials: int) -> int:
    """Training steps of all trials together."""
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
    gpus = 1 if wants_gpu(config) else 0
    task = ray.remote(_measure).options(num_cpus=1, num_gpus=gpus, max_retries=0)
    try:
        return Pace(*ray.get(task.remote(config.model_dump(mode="json"))))
    except ray.exceptions.RayTaskError as error:
        raise expected_error(error) or DerainError(f"No trial can run: {error.cause}") from error


def _measure(tree: dict[str, Any]) -> tuple[float, float, int]:
    pace = measure(Config.model_validate(tree))
    return pace.seconds_a_step, pace.seconds_per_image, pace.checkpoint_bytes


def _eval_pairs(config: Config) -> int:
    if not config.data.eval and config.data.synthetic is not None:
        return config.data.synthetic.eval_pairs
    return sum(open_prepared(folder).manifest.pairs for folder in config.data.eval)


def measure(config: Config) -> Pace:
    """Time a few steps on noise; pretrained weights do not matter for that and are not loaded.

    The steps learn next to nothing: a rate at which the first trial diverges fails that trial only.
    """
    values = {"train.steps": 100, "train.lr": 1e-12}
    config = without_weights(config).replaced(values, "estimate")
    torch.set_num_threads(config.train.cpu_threads or 1)
    network = build_network(config)
    device = pick_device(config.train)
    trainer = Trainer(config, network, loss_of(config, network), device=device, rank=Rank())
    batch = to_device(_noise(config), config.train)
    a_step = _seconds(lambda number: trainer.step(number, batch)["loss"].item())
    image = np.zeros((*IMAGE_SIZE_PX, 3), np.uint8)
    predictor = Predictor(network, device)
    an_image = _seconds(lambda _: predictor.derain(image))
    return Pace(a_step, an_image, _checkpoint_bytes(config, network))


def _checkpoint_bytes(config: Config, network: nn.Module) -> int:
    """Weights, two moments of the optimiser, and the average: float32 each."""
    copies = 3 if config.train.ema_decay is None else 4
    return copies * 4 * sum(p.numel() for p in network.parameters() if p.requires_grad)


def _noise(config: Config) -> Batch[np.ndarray]:
    side = config.train.crop_px
    shape = (config.train.batch_size // config.train.max_workers, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    ids = np.arange(shape[0])
    return Batch(images[0], images[1], ids, share=1.0, following=Position())


def _seconds(work: Callable[[int], object]) -> float:
    """Median seconds of a call, after one that is not counted."""
    work(0)
    times: list[float] = []
    while sum(times) < ENOUGH_S and len(times) < 20:
        began = time.perf_counter()
        work(len(times) + 1)
        times.append(time.perf_counter() - began)
    return float(np.median(times))
