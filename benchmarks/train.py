"""What the platform adds to a training step: our loop under Ray Train against a plain PyTorch loop.

Both train the same network on the same batches with one thread, in turns: ours in a Ray Train
worker, the plain loop in its own process without Ray. The plain loop has what ours has: our
loader, NHWC in memory, L1, AdamW with `fused=True` and the same options; and it drops the
gradients after the forward pass, which is the faster order. It never reads the loss, and checks,
logs and saves nothing. Then two workers against one, on the same global batch.
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

import ray.train
import torch
from ray.train.torch import TorchTrainer

from benchmarks._small import NoisePairs
from benchmarks.common import ROUNDS, Row, main, row
from derain import cluster
from derain.config import Config
from derain.data.loading.loader import Batch, Loader, Position
from derain.data.loading.order import Recipe
from derain.training.factory import build_network, loss_of
from derain.training.loop import Run, drive
from derain.training.process.device import to_device
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer

WARM, STEPS = 3, 15
"""Steps before the timed ones, and timed steps."""
PAIRS, SIDE_PX = 64, 128
CONFIG = {
    "name": "run",
    "model": {"name": "nafnet", "width": 16, "encoder_blocks": [1, 1], "decoder_blocks": [1, 1]},
    "loss": {"perceptual": "none"},
    "train": {"steps": 10**6, "batch_size": 16, "crop_px": 64, "device": "cpu", "cpu_threads": 1},
}


def make_config(folder: Path) -> Config:
    """The config of the run that both loops train."""
    return Config.model_validate({**CONFIG, "output_dir": str(folder)})


def make_loader(config: Config, rank: Rank) -> Loader:
    """The loader that both loops use."""
    recipe = Recipe(sizes=(PAIRS,), seed=config.data_seed)
    pixels = NoisePairs(PAIRS, SIDE_PX)
    return Loader([pixels], recipe, config.train.stages, rank=rank.number, world=rank.world)


def our_seconds(rank: Rank) -> float:
    """Seconds per step of our loop, with its metrics and checks."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder))
        network = build_network(config)
        loss, device = loss_of(config, network), torch.device("cpu")
        trainer = Trainer(config, network, loss, device=device, rank=rank)
        run = Run(config, trainer, config.folder, lambda *_: None, ["abc"], rank)
        run.until = WARM + STEPS + 1
        loader, starts = make_loader(config, rank), []

        def batch_at(at: Position) -> Batch:
            starts.append(time.perf_counter())
            return loader.batch(at)

        drive(run, batch_at, config.train)
    return (starts[WARM + STEPS] - starts[WARM]) / STEPS


def plain_seconds() -> float:
    """Seconds per step of a loop as a tutorial writes it."""
    steps = _plain_steps()
    for _ in itertools.islice(steps, WARM):
        pass
    start = time.perf_counter()
    for _ in itertools.islice(steps, STEPS):
        pass
    return (time.perf_counter() - start) / STEPS


def _plain_steps() -> Iterator[None]:
    torch.set_num_threads(1)
    config, at = make_config(Path()), Position()
    network, loader = build_network(config), make_loader(config, Rank())
    network = network.to(memory_format=torch.channels_last).train()
    train = config.train
    optimizer = torch.optim.AdamW(
        network.parameters(), train.lr, train.betas, weight_decay=train.weight_decay, fused=True
    )
    while True:
        batch = to_device(loader.batch(at), train)
        loss = (network(batch.rain) - batch.clean).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        at = batch.following
        yield


def plain_seconds_apart() -> float:
    """`plain_seconds` of a new process."""
    command = [sys.executable, "-m", "benchmarks.train", "--plain"]
    root = Path(__file__).parents[1]
    return float(subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True).stdout)


def in_turns(payload: dict) -> None:
    """In one Ray Train worker: rounds of our loop, and of the plain one in another process."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(payload["rounds"]):
        for who in sorted(times, reverse=bool(number % 2)):
            times[who].append(our_seconds(Rank()) if who == "ours" else plain_seconds_apart())
    Path(payload["out"]).write_text(json.dumps(times))


def together(payload: dict) -> None:
    """In each of two Ray Train workers: rounds of our loop on both."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    times = [our_seconds(rank) for _ in range(payload["rounds"])]
    if rank.leads:
        Path(payload["out"]).write_text(json.dumps({"ours": times}))


def under_ray(work: object, workers: int, rounds: int) -> dict[str, float]:
    """Median seconds per step that the workers measured."""
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
    """The cost of a step, and what a second worker gains."""
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
        print(plain_seconds())
    else:
        main(rows)
