"""What the platform costs a training step: our loop under Ray Train against a plain PyTorch loop.

Both train the same network on the same batches with one thread, in turns: ours in a Ray Train
worker, the plain loop in a process of its own that knows no Ray. The plain loop has what ours has:
our loader, NHWC in memory, L1, AdamW with `fused=True` and the same options, and it forgets
gradients after the forward pass, which is the faster order. It looks at no loss, checks, logs and
saves nothing. Then two workers against one, on the same global batch.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import ray.train
import torch
from ray.train.torch import TorchTrainer

from benchmarks.common import ROUNDS, Row, main, row
from derain import cluster
from derain.config import Config
from derain.data.loading.loader import Loader, Position
from derain.data.loading.order import Recipe
from derain.training.factory import build_network, loss_of
from derain.training.loop import Run
from derain.training.process.device import to_device
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer

WARM, STEPS = 3, 15
PAIRS = 64
CONFIG = {
    "name": "run",
    "model": {"name": "nafnet", "width": 16, "encoder_blocks": [1, 1], "decoder_blocks": [1, 1]},
    "loss": {"perceptual": "none"},
    "train": {"steps": 10**6, "batch_size": 16, "crop_px": 64, "device": "cpu", "cpu_threads": 1},
}


class Pixels:
    """Random pairs in memory."""

    def __init__(self) -> None:
        self._pairs = np.random.default_rng(0).integers(0, 256, (PAIRS, 2, 128, 128, 3), np.uint8)

    def __len__(self) -> int:
        return PAIRS

    def __getitem__(self, sample: int) -> np.ndarray:
        return self._pairs[sample]


def config(folder: Path) -> Config:
    """The run of the benchmark."""
    return Config.model_validate({**CONFIG, "output_dir": str(folder)})


def loader(config: Config, rank: Rank) -> Loader:
    """Its batches."""
    recipe = Recipe(sizes=(PAIRS,), seed=config.data_seed)
    return Loader([Pixels()], recipe, config.train.stages, rank=rank.number, world=rank.world)


def timed(steps: Iterator[None]) -> float:
    """Seconds a step, the first ones not counted."""
    for _ in itertools.islice(steps, WARM):
        pass
    began = time.perf_counter()
    for _ in itertools.islice(steps, STEPS):
        pass
    return (time.perf_counter() - began) / STEPS


def ours(rank: Rank) -> Iterator[None]:
    """Steps of our loop, with its figures and checks."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        wanted = config(Path(folder))
        network = build_network(wanted)
        loss, device = loss_of(wanted, network), torch.device("cpu")
        trainer = Trainer(wanted, network, loss, device=device, rank=rank)
        run = Run(wanted, trainer, wanted.folder, lambda *_: None, ["abc"], rank)
        batches, loop = loader(wanted, rank), run.loop()
        at = next(loop)
        while True:
            at = loop.send(to_device(batches.batch(at), wanted.train))
            yield


def plain() -> Iterator[None]:
    """Steps as a tutorial writes them."""
    torch.set_num_threads(1)
    wanted, at = config(Path()), Position()
    network, batches = build_network(wanted), loader(wanted, Rank())
    network = network.to(memory_format=torch.channels_last).train()
    train = wanted.train
    optimizer = torch.optim.AdamW(
        network.parameters(), train.lr, train.betas, weight_decay=train.weight_decay, fused=True
    )
    while True:
        batch = to_device(batches.batch(at), wanted.train)
        loss = (network(batch.rain) - batch.clean).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        at = batch.following
        yield


def in_turns(payload: dict) -> None:
    """In one Ray Train worker: rounds of ours, and of the plain loop in a process beside it."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(payload["rounds"]):
        for who in sorted(times, reverse=bool(number % 2)):
            times[who].append(timed(ours(Rank())) if who == "ours" else plain_apart())
    Path(payload["out"]).write_text(json.dumps(times))


def plain_apart() -> float:
    """Seconds a step of the plain loop in a new process."""
    command = [sys.executable, "-m", "benchmarks.train", "--plain"]
    where = Path(__file__).parents[1]
    return float(subprocess.run(command, cwd=where, stdout=subprocess.PIPE, check=True).stdout)


def together(payload: dict) -> None:
    """In each of two Ray Train workers: rounds of ours with all of them."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    times = [timed(ours(rank)) for _ in range(payload["rounds"])]
    if rank.leads:
        Path(payload["out"]).write_text(json.dumps({"ours": times}))


def under_ray(work: object, workers: int, rounds: int) -> dict[str, float]:
    """Median seconds a step that the workers measured."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "times.json")
        TorchTrainer(
            work,
            train_loop_config={"rounds": rounds, "out": str(out)},
            scaling_config=ray.train.ScalingConfig(num_workers=workers),
            run_config=ray.train.RunConfig(name="train", storage_path=folder),
        ).fit()
        return {who: statistics.median(s) for who, s in json.loads(out.read_text()).items()}


def rows(rounds: int = ROUNDS) -> Sequence[Row]:
    """The cost of a step, and what a second worker brings."""
    with cluster.connected():
        one = under_ray(in_turns, 1, rounds)
        two = under_ray(together, 2, rounds)["ours"] if cluster.cpus() >= 2 else None
    peer = {"plain": one["plain"]}
    found = [row("one worker, a step", "s", one["ours"], peer, more_is_better=False)]
    if two is not None:
        alone = {"one worker": one["ours"]}
        found.append(row("two workers, a step", "s", two, alone, more_is_better=False))
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["--plain"]:
        print(timed(plain()))
    else:
        main(rows)
