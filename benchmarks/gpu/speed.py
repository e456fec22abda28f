"""Images a second of each network at the paper's size, and what share of the GPU that is.

Variants, each with all of those before it: `fp32` (NCHW, torch's defaults: convolutions may round
to TF32, matrix products not), `bf16`, `channels_last`, `compile` (with CUDA graphs, as the trainer
does on one GPU). A training step is the platform's
own: forward pass, the paper's loss, backward pass, clipping, optimiser.

The limit is the time of matrix products with as many operations, in bfloat16.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._small import NoisePairs
from benchmarks.gpu.items import NETWORKS, THREE, Bench, Work, paper, random_batch, trainer_of
from derain.config import Config
from derain.data.loading.loader import Batch, Loader, Position
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import prefetch
from derain.inference.predictor import Predictor
from derain.training.cohort import SharedModules
from derain.training.factory import build_network
from derain.training.loop import Run
from derain.training.process.device import is_out_of_memory, to_device

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "channels_last": False, "compile": False},
    "bf16": {"precision": "bf16", "channels_last": False, "compile": False},
    "channels_last": {"precision": "bf16", "channels_last": True, "compile": False},
    "compile": {"precision": "bf16", "channels_last": True, "compile": True},
}
EAGER = ("fp32", "bf16", "channels_last")
COMPILED = (*THREE, "nafnet")
WARM, LEAST, SECONDS = 4, 8, 1.2
"""Steps before the timed ones; the least number of timed steps, and their least time."""
GEMM = 8192
PAIRS, SIZE_PX = 64, (321, 481)


def items(bench: Bench) -> Iterator[tuple[str, Work]]:
    """The GPU's own limits, then the three papers' networks, then the others."""
    yield "limits", partial(_limits, bench)
    for name in NETWORKS:
        for variant in EAGER:
            yield f"{name} training {variant}", partial(_training, bench, name, variant)
            yield f"{name} forward {variant}", partial(_forward, bench, name, variant)
        yield f"{name} image {SIZE_PX[1]}x{SIZE_PX[0]}", partial(_image, bench, name)
    for name in THREE:
        for processes in (0, 4):
            work = partial(_waiting, bench, name, processes)
            yield f"{name} waits for {processes} loader processes", work
    yield "fclip_unet cohort of 4", partial(_cohort, bench)
    for name in (*THREE, "nafnet"):
        yield f"{name} kernels", partial(_kernels, bench, name)
    for name in COMPILED:  # last, as compiling takes a minute each
        yield f"{name} training compile", partial(_training, bench, name, "compile")


def _limits(bench: Bench) -> Mapping[str, Any]:
    """Matrix products and copies: tera-operations and tera-bytes a second."""
    side = 512 if bench.small else GEMM
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = torch.randn(2, side, side, device=bench.device).to(dtype)
        seconds = _seconds(bench, partial(torch.mm, a, b))
        found[f"{name}_tflops"] = 2 * side**3 / seconds / 1e12
    source = torch.randn(side * side, device=bench.device)
    target = torch.empty_like(source)
    found["copy_tbytes"] = 8 * side * side / _seconds(bench, lambda: target.copy_(source)) / 1e12
    return found


def _training(bench: Bench, name: str, variant: str) -> Mapping[str, Any]:
    return _halving(partial(_training_of, bench, name, variant), _batch_size(bench, name))


def _training_of(bench: Bench, name: str, variant: str, count: int) -> Mapping[str, Any]:
    config = _config(bench, name, variant)
    trainer = trainer_of(config, bench.device)
    batch = random_batch(config, bench.device, count, config.train.crop_px)
    operations = 0
    if not config.train.compile:
        with FlopCounterMode(display=False) as counter:
            trainer.step(0, batch)
        operations = counter.get_total_flops()
    return _rate(bench, lambda: trainer.step(1, batch), count, operations)


def _forward(bench: Bench, name: str, variant: str) -> Mapping[str, Any]:
    return _halving(partial(_forward_of, bench, name, variant), _batch_size(bench, name))


def _forward_of(bench: Bench, name: str, variant: str, count: int) -> Mapping[str, Any]:
    config = _config(bench, name, variant)
    trainer = trainer_of(config, bench.device)
    trainer.network.eval()
    rainy = random_batch(config, bench.device, count, config.train.crop_px).rain

    @torch.inference_mode()
    def work() -> None:
        with trainer._autocast():
            trainer._forward(rainy)

    with FlopCounterMode(display=False) as counter:
        work()
    return _rate(bench, work, count, counter.get_total_flops())


def _image(bench: Bench, name: str) -> Mapping[str, Any]:
    """Milliseconds of one image through the predictor, from numpy to numpy."""
    network = build_network(paper(bench, name)).eval()
    predictor = Predictor(network, bench.device)
    size = (64, 96) if bench.small else SIZE_PX
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return {"ms": 1000 * _seconds(bench, lambda: predictor.derain(image))}


def _waiting(bench: Bench, name: str, processes: int) -> Mapping[str, Any]:
    """The share of a run's time in which the GPU waits for the loader: steps of a whole run on new
    batches, against the same steps on one batch that is on the device already."""
    config = _config(bench, name, "channels_last")
    loader = Loader([_Photographs()], Recipe(sizes=(PAIRS,), seed=0), config.train.stages)
    with prefetch(loader, processes) as batch_at:
        run = _run(config, bench)
        with run:
            fixed = to_device(batch_at(run.position), config.train)
            same = _steps(bench, run, lambda: _at(fixed, run.position, loader))
            new = _steps(bench, run, lambda: to_device(batch_at(run.position), config.train))
            again = _steps(bench, run, lambda: _at(fixed, run.position, loader))
    least = min(same, again)
    return {"ms_step": 1000 * new, "ms_step_without": 1000 * least, "waiting": 1 - least / new}


def _at(batch: Batch[Tensor], position: Position, loader: Loader) -> Batch[Tensor]:
    following = loader.plan(position).following
    return Batch(batch.rain, batch.clean, batch.ids, batch.share, following)


def _steps(bench: Bench, run: Run, batch: Callable[[], Batch[Tensor]]) -> float:
    """Seconds a step, of enough steps."""
    count = 4 if bench.small else 40
    for _ in range(WARM):
        run.step(batch())
    _wait(bench)
    began = time.perf_counter()
    for _ in range(count):
        run.step(batch())
    _wait(bench)
    return (time.perf_counter() - began) / count


class _Photographs(NoisePairs):
    """Noise of the size of RainTrainL's images."""

    def __init__(self) -> None:
        shape = (PAIRS, 2, *SIZE_PX, 3)
        self._pairs = np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _cohort(bench: Bench) -> Mapping[str, Any]:
    """Four runs that share batch and frozen encoder in turns, against four steps of one alone."""
    config = _config(bench, "fclip_unet", "channels_last")
    batch = random_batch(config, bench.device, config.train.batch_size, config.train.crop_px)
    shared = SharedModules()
    members = [trainer_of(config, bench.device, shared) for _ in range(4)]
    alone = trainer_of(config, bench.device)

    def together() -> None:
        shared.begin(batch)
        for member in members:
            member.step(1, batch)
        shared.check()

    def apart() -> None:
        for _ in members:
            alone.step(1, batch)

    ours, theirs = _seconds(bench, together), _seconds(bench, apart)
    return {"ms_together": 1000 * ours, "ms_apart": 1000 * theirs, "ratio": theirs / ours}


def _kernels(bench: Bench, name: str) -> Mapping[str, Any]:
    """Where the time of a training step goes; the table of kernels is a file."""
    config = _config(bench, name, "channels_last")
    trainer = trainer_of(config, bench.device)
    batch = random_batch(config, bench.device, config.train.batch_size, config.train.crop_px)
    for _ in range(WARM):
        trainer.step(1, batch)
    _wait(bench)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    began = time.perf_counter()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            trainer.step(1, batch)
        _wait(bench)
    wall = time.perf_counter() - began
    events = profile.key_averages()
    by = "self_device_time_total" if bench.device.type == "cuda" else "self_cpu_time_total"
    kernels = sorted(events, key=lambda event: -getattr(event, by))[:40]
    lines = [f"{getattr(e, by) / 3000:9.3f} ms  {e.count // 3:5d}  {e.key[:120]}" for e in kernels]
    (bench.out / f"kernels_{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    busy = sum(getattr(event, by) for event in events) / 1e6
    count = sum(event.count for event in events if getattr(event, by)) // 3
    return {"kernels_a_step": count, "busy_ms": 1000 * busy / 3, "wall_ms": 1000 * wall / 3}


def _config(bench: Bench, name: str, variant: str) -> Config:
    changes = {f"train__{key}": value for key, value in VARIANTS[variant].items()}
    return paper(bench, name, **changes, train__eval_every_steps=None)


def _run(config: Config, bench: Bench) -> Run:
    trainer = trainer_of(config, bench.device)
    return Run(config, trainer, config.folder, lambda *_: None, ["noise"])


def _batch_size(bench: Bench, name: str) -> int:
    return paper(bench, name).train.batch_size


def _halving(work: Callable[[int], Mapping[str, Any]], count: int) -> Mapping[str, Any]:
    """The work with this many crops, or with the most that fit."""
    while True:
        try:
            return work(count)
        except RuntimeError as error:
            if not is_out_of_memory(error) or count == 1:
                raise
        count //= 2  # outside the handler, which keeps the frames and their tensors
        torch.cuda.empty_cache()


def _rate(
    bench: Bench, work: Callable[[], object], count: int, operations: int
) -> Mapping[str, Any]:
    first = time.perf_counter()
    work()
    _wait(bench)
    first = time.perf_counter() - first
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(bench, work)
    found = {"images_s": count / seconds, "ms": 1000 * seconds, "batch": count, "first_s": first}
    if operations:
        found["tflops"] = operations / seconds / 1e12
    if bench.device.type == "cuda":
        found["gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def _seconds(bench: Bench, work: Callable[[], object]) -> float:
    """The median of several calls, each from an idle device to an idle device."""
    for _ in range(WARM if not bench.small else 1):
        work()
    _wait(bench)
    times: list[float] = []
    until = time.perf_counter() + (0 if bench.small else SECONDS)
    while len(times) < (2 if bench.small else LEAST) or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        _wait(bench)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
