"""Forward pass and training step of the three networks, against the same written down plainly.

Ours has NHWC in memory, as the trainer and the predictor have it. Peers: `plain` (`_plain.py`, NCHW
in memory), `channels_last` (the same, NHWC in memory) and, where asked for, `compiled` (ours by
torch.compile, whose compiling is not timed). All have the same weights and give the same image
within `TOLERANCE`.

The limit is the time in which this machine multiplies matrices (2048 x 2048, float32) with as many
operations as the plain one needs in convolutions and matrix products.

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
"""The papers' sizes; values of weights do not change the time, so none are downloaded."""
STEPS = ("forward", "training")
PEERS = ("plain", "channels_last", "compiled")
TOLERANCE = 1e-4
"""Of 1, the range of an image."""
GEMM_SIDE = 2048


@dataclass(frozen=True)
class Case:
    """What is timed: one network on square images."""

    network: str
    size_px: int
    step: str
    demo: bool = False
    """The size of configs/NAME.yaml, profile demo, in place of the paper's."""
    batch: int = 1

    @property
    def title(self) -> str:
        size = "demo" if self.demo else "paper"
        return f"{self.network} {size}, {self.step}, {self.batch} x {self.size_px} px"

    def contestant(self, name: str) -> nn.Module:
        """Ours, or a peer; all with the same weights."""
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
        """A call in which a contestant does the step once; it returns the image."""
        network = self.contestant(name)
        shape = (self.batch, 3, self.size_px, self.size_px)
        rainy, clean = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
        if name != "plain":
            rainy = rainy.to(memory_format=torch.channels_last)
        if self.step == "forward":
            return torch.inference_mode()(partial(network, rainy))
        return partial(_training_step, network, rainy, clean)


def _training_step(network: nn.Module, rainy: Tensor, clean: Tensor) -> Tensor:
    """Forward, L1 and the network's own terms, backward; no optimiser, which is everybody's."""
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


def rows(rounds: int, given: argparse.Namespace) -> list[Row]:
    """Two rows a case: milliseconds, and the most memory that a step takes."""
    cases = [
        Case(network, size, step, given.demo, given.batch)
        for network in given.network
        for size in given.size
        for step in given.step
    ]
    # Memory first: a step's gigabytes stay with this process, and another has no room beside it.
    peaks = [_memory(case, given.peers) for case in cases]
    return [
        found
        for case, peak in zip(cases, peaks, strict=True)
        for found in (_speed(case, given.peers, rounds), peak)
    ]


def _speed(case: Case, peers: Sequence[str], rounds: int) -> Row:
    works = {name: case.work(name) for name in (OURS, *peers)}
    with FlopCounterMode(display=False) as counter:
        wanted = case.work("plain")()
    for name, work in works.items():
        torch.testing.assert_close(
            work(), wanted, rtol=0, atol=TOLERANCE, check_stride=False, msg=partial(_differs, name)
        )
    timed: dict[str, Work] = {name: _without_result(work) for name, work in works.items()}
    ours = timed.pop(OURS)
    limit = partial(_gemm_seconds, counter.get_total_flops())
    return _in_ms(compare(case.title, "ms", ours, timed, limit=limit, rounds=rounds))


def _memory(case: Case, peers: Sequence[str]) -> Row:
    """Every contestant in a new process, so that none lives on what another has left; what is
    compiled is left out, since compiling takes more than the step."""
    peaks = {}
    for name in (OURS, *(peer for peer in peers if peer != "compiled")):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[name] = pool.submit(_peak_mib, case, name).result()
    ours = peaks.pop(OURS)
    return row(case.title, "MiB at most", ours, peaks, more_is_better=False)


def _peak_mib(case: Case, name: str) -> float:
    replace(case, size_px=32).work(name)()  # libraries load themselves on first use
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
    began = time.perf_counter()
    torch.mm(a, a)
    return (time.perf_counter() - began) * flops / (2 * GEMM_SIDE**3)


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
    parser.add_argument("--demo", action="store_true", help="the small networks of the demo")
    parser.add_argument("--peers", choices=PEERS, nargs="*", default=PEERS[:2])
    return parser


if __name__ == "__main__":
    main(rows, _options())
