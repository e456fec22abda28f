"""Four FCLIP-UNet trials trained in cohorts, against one after another and two at a time.

    ours          two processes with one thread each, a cohort of two trials in each
    one process   one cohort of four, with all threads
    in turn       four runs one after another, with all threads, as `derainctl train` runs them
    side by side  two processes with one thread each, two runs one after another in each, as Ray
                  Tune does it

All take the same steps of the same trials (configs/ldfps.yaml). Processes are started and networks
built beforehand, so only steps are timed. The limit is a step in which the frozen encoder, and the
perceptual network on the clean image, cost nothing: side by side minus their measured seconds.
"""

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._small import NoisePairs
from benchmarks.common import Row, main, row, take_turns
from derain.config import Config, load_config
from derain.data.loading.loader import Loader, Position
from derain.data.loading.order import Recipe
from derain.models import frozen_modules
from derain.training.cohort import Cohort, SharedModules
from derain.training.factory import build_network, loss_of
from derain.training.loop import Run, drive
from derain.training.process.device import pick_device, to_device
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer
from derain.tune.space import plan

ROOT = Path(__file__).parents[1]
TRIALS = 4
CLIP_SIZE = {"model.encoder_layers": [3, 4, 6, 3], "model.encoder_width": 64}
VGG19 = {"loss.lambda_p": 1.0, "loss.perceptual": "vgg19", "loss.perceptual_weights": "random"}
PAPER = {
    **CLIP_SIZE,
    **VGG19,
    "model.decoder_widths": [512, 256, 128, 64, 64],
    "model.decoder_depths": [3, 3, 3, 3, 3],
    "train.batch_size": 1,
    "train.crop_px": 128,
}
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "demo": ({}, 12),
    "demo with an encoder of CLIP-RN50's size": (CLIP_SIZE, 6),
    "the paper's network and loss, one crop of 128 px": (PAPER, 1),
}
"""What differs from the demo profile, and the steps of a round."""
DEMO_STEPS = 2000
DEMO_PAIRS, DEMO_SIDE_PX = 90, 256


def trials(values: Mapping[str, Any], steps: int) -> list[Config]:
    """The four perturbations of Table 11, with `values` set in each."""
    planned = plan(load_config(ROOT / "configs" / "ldfps.yaml", profile="demo"))
    short = {**values, "train.steps": steps, "train.checkpoint_every_steps": steps}
    return [trial.config.replaced(short, "benchmark") for trial in planned[:TRIALS]]


class Lane:
    """A process that trains the runs it is sent."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        context.Process(target=_serve, args=(far_end,), daemon=True).start()

    def ready(self, way: str, configs: Sequence[Config], threads: int) -> None:
        """Build the runs; returns when they can start."""
        self._pipe.send((way, [config.model_dump(mode="json") for config in configs], threads))
        self._pipe.recv()

    def start(self) -> None:
        """Start the runs that were built."""
        self._pipe.send(None)

    def wait(self) -> None:
        """Wait until they have ended."""
        self._pipe.recv()


def timed(lanes: Sequence[Lane], way: str, configs: Sequence[Config]) -> float:
    """Seconds that the lanes take for all trials, which they share evenly, as they do the cores."""
    for number, lane in enumerate(lanes):
        lane.ready(way, configs[number :: len(lanes)], max(1, 2 // len(lanes)))
    start = time.perf_counter()
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.wait()
    return time.perf_counter() - start


def _serve(pipe: Connection) -> None:
    pixels = NoisePairs(DEMO_PAIRS, DEMO_SIDE_PX)
    with contextlib.suppress(EOFError):  # the benchmark has ended
        while True:
            _perform(pipe, pixels, *pipe.recv())


def _perform(
    pipe: Connection, pixels: NoisePairs, way: str, trees: Sequence[dict[str, Any]], threads: int
) -> None:
    torch.set_num_threads(threads)
    configs = [Config.model_validate(tree) for tree in trees]
    with tempfile.TemporaryDirectory() as scratch:
        work = WAYS[way](configs, pixels, Path(scratch))
        pipe.send("ready")
        pipe.recv()
        work()
        pipe.send("done")


def _alone(configs: Sequence[Config], pixels: NoisePairs, scratch: Path) -> Any:
    runs = [build_run(config, scratch, None) for config in configs]

    def work() -> None:
        for run in runs:
            drive(run, loader(run.config, pixels).batch, run.config.train)

    return work


def _cohort(configs: Sequence[Config], pixels: NoisePairs, scratch: Path) -> Any:
    shared = SharedModules()
    runs = {config.name: build_run(config, scratch, shared) for config in configs}
    cohort = Cohort(runs, shared)

    def work() -> None:
        cohort.drive(loader(configs[0], pixels).batch, configs[0].train)
        assert not cohort.failed, cohort.failed

    return work


def _frozen(configs: Sequence[Config], pixels: NoisePairs, _scratch: Path) -> Any:
    """The frozen modules alone, as often as the steps of one trial after another call them."""
    config = configs[0]
    network = build_network(config).to(memory_format=torch.channels_last)
    loss = loss_of(config, network).to(memory_format=torch.channels_last)
    batch = to_device(loader(config, pixels).batch(Position()), config.train)
    perceptual = frozen_modules(loss).values()

    @torch.no_grad()
    def work() -> None:
        for _ in range(config.train.steps * len(configs)):
            for module in frozen_modules(network).values():
                module(batch.rain)
            for module in perceptual:
                module(batch.clean)

    return work


WAYS = {"alone": _alone, "cohort": _cohort, "frozen": _frozen}


def loader(config: Config, pixels: NoisePairs) -> Loader:
    """The loader of a run, over pairs in memory."""
    return Loader([pixels], Recipe(sizes=(len(pixels),), seed=0), config.train.stages)


def build_run(config: Config, scratch: Path, shared: SharedModules | None) -> Run:
    """A run that reports nothing."""
    network = build_network(config)
    share_frozen(shared, network)
    loss = loss_of(config, network)
    share_frozen(shared, loss)
    device = pick_device(config.train)
    return Run(
        config=config,
        trainer=Trainer(config, network, loss, device=device, rank=Rank()),
        folder=scratch / config.name,
        report=lambda *_: None,
        manifests=[],
    )


def share_frozen(shared: SharedModules | None, owner: nn.Module) -> None:
    """Share a module's frozen parts with the cohort, if any."""
    if shared:
        shared.share_frozen(owner)


def rows(rounds: int) -> list[Row]:
    """A row per network; its limit is a cohort whose shared parts cost nothing."""
    lanes = [Lane(), Lane()]
    found = []
    for name, (values, steps) in NETWORKS.items():
        configs = trials(values, steps)
        times = take_turns(
            {
                "ours": lambda c=configs: timed(lanes, "cohort", c),
                "one process": lambda c=configs: timed(lanes[:1], "cohort", c),
                "in turn": lambda c=configs: timed(lanes[:1], "alone", c),
                "side by side": lambda c=configs: timed(lanes, "alone", c),
                "frozen": lambda c=configs: timed(lanes, "frozen", c),
            },
            rounds,
        )
        found.append(_row(name, {who: float(np.median(t)) for who, t in times.items()}, steps))
    return found


def _row(name: str, seconds: Mapping[str, float], steps: int) -> Row:
    per_hour = {who: TRIALS * 3600 / (s / steps * DEMO_STEPS) for who, s in seconds.items()}
    shared = seconds["frozen"] / seconds["side by side"]
    best = per_hour["side by side"] / (1 - shared)
    return row(
        f"{name}: {shared:.0%} of a step is frozen",
        f"trials of {DEMO_STEPS} steps/h",
        per_hour["ours"],
        {who: per_hour[who] for who in ("one process", "in turn", "side by side")},
        limit=best,
    )


if __name__ == "__main__":
    main(rows)
