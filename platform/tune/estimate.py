"""How long a trial will take: a few steps and one picture, timed where trials run."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from derain.config import Config
from derain.data.loader import Batch, Position
from derain.parallel import Rank
from derain.predictor import Predictor
from derain.trainer import Trainer, build_network, loss_of, pick_device, place, without_weights

PICTURE = (321, 481)
"""Height and width of a BSD picture, the commonest in rain datasets."""
START_S = 15.0
"""A worker's start: importing torch and open_clip, building the network (measured: 10 to 20 s)."""
ENOUGH_S = 3.0


@dataclass(frozen=True)
class Pace:
    """What was timed."""

    seconds_a_step: float
    seconds_a_picture: float

    def trial_seconds(self, config: Config, eval_pairs: int) -> float:
        """Of one trial, its start and its scoring included."""
        steps = config.train.steps * self.seconds_a_step
        return START_S + steps + eval_pairs * self.seconds_a_picture


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
    batch = place(_noise(config), config.train)
    a_step = _seconds(lambda number: trainer.step(number, batch)["loss"].item())
    picture = np.zeros((*PICTURE, 3), np.uint8)
    predictor = Predictor(network, device)
    return Pace(a_step, _seconds(lambda _: predictor.derain(picture)))


def _noise(config: Config) -> Batch[np.ndarray]:
    side = config.train.crop_px
    shape = (config.train.batch_size // config.train.num_workers, side, side, 3)
    pictures = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    ids = np.arange(shape[0])
    return Batch(pictures[0], pictures[1], ids, share=1.0, following=Position())


def _seconds(work: Callable[[int], object]) -> float:
    """Median seconds of a call, after one that is not counted."""
    work(0)
    times: list[float] = []
    while sum(times) < ENOUGH_S and len(times) < 20:
        began = time.perf_counter()
        work(len(times) + 1)
        times.append(time.perf_counter() - began)
    return float(np.median(times))
