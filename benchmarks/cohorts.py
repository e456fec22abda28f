"""Four FCLIP-UNet trials side by side in cohorts, against one after another and two at once.

    ours          two processes of one thread, a cohort of two trials in each
    one process   one cohort of four, with all threads
    in turn       four runs one after another, with all threads, as `derainctl train` runs them
    side by side  two processes of one thread, two runs one after another in each, as Ray Tune does

Everyone takes the same steps of the same trials (configs/ldfps.yaml); processes have started and
networks are built, so the figures are of steps alone. The limit is a step whose encoder, and whose
perceptual network on the clean image, cost nothing: side by side less their measured seconds.
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

from benchmarks.common import Row, main, row, take_turns
from derain.config import Config, load_config
from derain.data.loading.loader import Loader, Position
from derain.data.loading.order import Recipe
from derain.models import frozen_modules
from derain.training.cohort import Cohort, Shared
from derain.training.factory import build_network, loss_of
from derain.training.loop import Loop, Run, follow
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
"""Other values of the demo profile, and the steps of a round."""


class Pixels:
    """As many pairs as the demo has, of noise."""

    def __init__(self) -> None:
        self._pairs = np.random.default_rng(0).integers(0, 256, (90, 2, 256, 256, 3), np.uint8)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, sample: int) -> np.ndarray:
        return self._pairs[sample]


def trials(values: Mapping[str, Any], steps: int) -> list[Config]:
    """The four perturbations of Table 11, with these values."""
    planned = plan(load_config(ROOT / "configs" / "ldfps.yaml", profile="demo"))
    short = {**values, "train.steps": steps, "train.checkpoint_every_steps": steps}
    return [trial.config.replaced(short, "benchmark") for trial in planned[:TRIALS]]


class Lane:
    """A process that trains what it is told to."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs,), daemon=True).start()

    def ready(self, way: str, configs: Sequence[Config], threads: int) -> None:
        """Build the runs; returns when they could start."""
        self._pipe.send((way, [config.model_dump(mode="json") for config in configs], threads))
        self._pipe.recv()

    def start(self) -> None:
        """Let them run."""
        self._pipe.send(None)

    def wait(self) -> None:
        """Until they have ended."""
        self._pipe.recv()


def timed(lanes: Sequence[Lane], way: str, configs: Sequence[Config]) -> float:
    """Seconds in which the lanes, each with its share of trials and cores, do all of them."""
    for number, lane in enumerate(lanes):
        lane.ready(way, configs[number :: len(lanes)], max(1, 2 // len(lanes)))
    began = time.perf_counter()
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.wait()
    return time.perf_counter() - began


def _serve(pipe: Connection) -> None:
    pixels = Pixels()
    with contextlib.suppress(EOFError):  # the benchmark has ended
        while True:
            _perform(pipe, pixels, *pipe.recv())


def _perform(
    pipe: Connection, pixels: Pixels, way: str, trees: Sequence[dict[str, Any]], threads: int
) -> None:
    torch.set_num_threads(threads)
    configs = [Config.model_validate(tree) for tree in trees]
    with tempfile.TemporaryDirectory() as scratch:
        work = WAYS[way](configs, pixels, Path(scratch))
        pipe.send("ready")
        pipe.recv()
        work()
        pipe.send("done")


def _alone(configs: Sequence[Config], pixels: Pixels, scratch: Path) -> Any:
    loops = [(config, loop(config, scratch, None)) for config in configs]

    def work() -> None:
        for config, each in loops:
            follow(each, loader(config, pixels).batch, config.train)

    return work


def _cohort(configs: Sequence[Config], pixels: Pixels, scratch: Path) -> Any:
    shared = Shared()
    cohort = Cohort({config.name: loop(config, scratch, shared) for config in configs}, shared)

    def work() -> None:
        cohort.follow(loader(configs[0], pixels).batch, configs[0].train)
        assert not cohort.failed, cohort.failed

    return work


def _frozen(configs: Sequence[Config], pixels: Pixels, _scratch: Path) -> Any:
    """What the steps of one trial after another ask of modules that never change."""
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


def loader(config: Config, pixels: Pixels) -> Loader:
    """As a run's, over pixels in memory."""
    return Loader([pixels], Recipe(sizes=(len(pixels),), seed=0), config.train.stages)


def loop(config: Config, scratch: Path, shared: Shared | None) -> Loop[Any]:
    """A run that reports to nobody."""
    network = build_network(config)
    adopt(shared, network)
    loss = loss_of(config, network)
    adopt(shared, loss)
    device = pick_device(config.train)
    return Run(
        config=config,
        trainer=Trainer(config, network, loss, device=device, rank=Rank()),
        folder=scratch / config.name,
        report=lambda *_: None,
        manifests=[],
    ).loop()


def share_frozen(shared: Shared | None, owner: nn.Module) -> None:
    """Take part in a cohort, if there is one."""
    if shared:
        shared.share_frozen(owner)


def rows(rounds: int) -> list[Row]:
    """A row for each network, and what a cohort would gain if what is shared cost nothing."""
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
    an_hour = {who: TRIALS * 3600 / (s / steps * DEMO_STEPS) for who, s in seconds.items()}
    shared = seconds["frozen"] / seconds["side by side"]
    best = an_hour["side by side"] / (1 - shared)
    return row(
        f"{name}: {shared:.0%} of a step is frozen",
        f"trials of {DEMO_STEPS} steps/h",
        an_hour["ours"],
        {who: an_hour[who] for who in ("one process", "in turn", "side by side")},
        limit=best,
    )


DEMO_STEPS = 2000

if __name__ == "__main__":
    main(rows)
