"""Forward pass and training step of the three networks, against plain formulations of the same.

Ours is NHWC in memory, as in the trainer and the predictor. Peers: `plain` (`_plain.py`, NCHW in
memory), `channels_last` (the same, NHWC in memory) and, only with `--peers`, `compiled` (ours with
torch.compile; compilation is not timed). All have the same weights and give the same image within
`TOLERANCE`.

The limit is the time that this machine takes for matrix products (2048 x 2048, float32) with as
many operations as the plain network's convolutions and matrix products.

    python -m benchmarks.networks --network fclip_unet --size 512 --step forward
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._plain import plain
from benchmarks.common import OURS, Row, Work, compare, main, row
from derain.config import load_config
from derain.models import build

NETWORKS: dict[str, dict[str, object]] = {
    "fclip_unet": {"encoder_weights": "random"},
    "clip_rpn": {"routing": "single"},
    "rdmc": {},
}
"""The papers' sizes; the weights' values do not affect the time, so none are downloaded."""
STEPS = ("forward", "training")
PEERS = ("plain", "channels_last", "compiled")
TOLERANCE = 1e-4
"""Largest difference between images in [0, 1]."""
GEMM_SIDE = 2048


@dataclass(frozen=True)
class Case:
    """What is timed: one network on square images."""

    network: str
    size_px: int
    step: str
    demo: bool = False
    """Take the size of configs/NAME.yaml, profile demo, instead of the paper's."""
    batch: int = 1

    @property
    def title(self) -> str:
        size = "demo" if self.demo else "paper"
        return f"{self.network} {size}, {self.step}, {self.batch} x {self.size_px} px"

    def contestant(self, name: str) -> nn.Module:
        """Our network or a peer's, all with the same weights."""
        torch.manual_seed(0)
        options = NETWORKS[self.network]
        if self.demo:
            config = load_config(f"configs/{self.network}.yaml", profile="demo")
            options = config.model.model_dump(exclude={"name"})
        network = build(self.network, **options).train(self.step == "training")
        if name in ("plain", "channels_last"):
            network = plain(network)
        if name != "plain":
            network = network.to(memory_format=torch.channels_last)
        if name == "compiled":  # LDFPS draws the same noise as eager
            return torch.compile(network, options={"fallback_random": True})
        return network

    def work(self, name: str) -> Callable[[], Tensor]:
        """A function that does the contestant's step once and returns the image."""
        network = self.contestant(name)
        shape = (self.batch, 3, self.size_px, self.size_px)
        rainy, clean = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
        if name != "plain":
            rainy = rainy.to(memory_format=torch.channels_last)
        if self.step == "forward":
            return torch.inference_mode()(partial(network, rainy))
        return partial(_training_step, network, rainy, clean)


def _training_step(network: nn.Module, rainy: Tensor, clean: Tensor) -> Tensor:
    """Forward, L1 with the auxiliary terms, backward; the optimiser step is the same for all."""
    network.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    weights = getattr(network, "auxiliary", {})
    if weights:
        output, terms = network(rainy, clean=clean)
        extra = sum(weight * terms[name] for name, weight in weights.items())
    else:
        output, extra = network(rainy), 0.0
    ((output - clean).abs().mean() + extra).backward()
    return output.detach()


def rows(rounds: int, options: argparse.Namespace) -> list[Row]:
    """Two rows per case: milliseconds, and peak memory of a step."""
    cases = [
        Case(network, size, step, options.demo, options.batch)
        for network in options.network
        for size in options.size
        for step in options.step
    ]
    # Memory first: this process keeps the gigabytes of the steps it has timed.
    peaks = [_memory(case, options.peers) for case in cases]
    return [
        found
        for case, peak in zip(cases, peaks, strict=True)
        for found in (_speed(case, options.peers, rounds), peak)
    ]


def _speed(case: Case, peers: Sequence[str], rounds: int) -> Row:
    works = {name: case.work(name) for name in (OURS, *peers)}
    with FlopCounterMode(display=False) as counter:
        expected = case.work("plain")()
    for name, work in works.items():
        torch.testing.assert_close(
            work(),
            expected,
            rtol=0,
            atol=TOLERANCE,
            check_stride=False,
            msg=partial(_differs, name),
        )
    timed: dict[str, Work] = {name: _without_result(work) for name, work in works.items()}
    ours = timed.pop(OURS)
    limit = partial(_gemm_seconds, counter.get_total_flops())
    return _in_ms(compare(case.title, "ms", ours, timed, limit=limit, rounds=rounds))


def _memory(case: Case, peers: Sequence[str]) -> Row:
    """Peak memory, each contestant in a new process so that none reuses another's allocations;
    without `compiled`, because compilation takes more memory than the step."""
    peaks = {}
    for name in (OURS, *(peer for peer in peers if peer != "compiled")):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[name] = pool.submit(_peak_mib, case, name).result()
    ours = peaks.pop(OURS)
    return row(case.title, "MiB peak", ours, peaks, more_is_better=False)


def _peak_mib(case: Case, name: str) -> float:
    replace(case, size_px=32).work(name)()  # libraries are loaded on first use
    work = case.work(name)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = _peak_of_process_mib()
    work()
    return _peak_of_process_mib() - before


def _peak_of_process_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _gemm_seconds(flops: int) -> float:
    a = torch.rand(GEMM_SIDE, GEMM_SIDE)
    start = time.perf_counter()
    torch.mm(a, a)
    return (time.perf_counter() - start) * flops / (2 * GEMM_SIDE**3)


def _without_result(work: Callable[[], Tensor]) -> Work:
    def timed() -> None:
        work()

    return timed


def _in_ms(found: Row) -> Row:
    peers = {name: 1000 * seconds for name, seconds in found.peers.items()}
    limit = None if found.limit is None else 1000 * found.limit
    return replace(found, ours=1000 * found.ours, peers=peers, limit=limit)


def _differs(name: str, message: str) -> str:
    return f"{name} and plain give different images. {message}"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    parser.add_argument("--size", type=int, nargs="+", default=[256], metavar="PX")
    parser.add_argument("--step", choices=STEPS, nargs="+", default=STEPS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--demo", action="store_true", help="the demo's small networks")
    parser.add_argument("--peers", choices=PEERS, nargs="*", default=PEERS[:2])
    return parser


if __name__ == "__main__":
    main(rows, _options())
