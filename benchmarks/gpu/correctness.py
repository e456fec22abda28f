"""Whether a GPU computes what the CPU does, resumes to the bit, and survives a lack of memory.

The error of an image is measured against the rain that the network took away from it, and the error
of a gradient against the gradient: |x - cpu| / |cpu|, over all elements.
"""

import copy
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._small import NoisePairs
from benchmarks.gpu.items import NETWORKS, THREE, Bench, Work, paper, random_batch, trainer_of
from derain.config import Config
from derain.data.loading.loader import Loader
from derain.data.loading.order import Recipe
from derain.inference.predictor import Predictor
from derain.models import trained_parameters
from derain.training import checkpoint
from derain.training.cohort import Cohort, SharedModules
from derain.training.factory import build_network, loss_of
from derain.training.loop import Run, drive
from derain.training.process.distributed import Rank
from derain.training.routes import rainy_batches
from derain.training.trainer import Trainer

IMAGE, GRADIENT = 1e-4, 1e-3
"""Largest errors in float32 without TF32."""
ROUNDED_IMAGE, ROUNDED_GRADIENT = 0.05, 0.3
"""Largest errors in bfloat16, whose step is 2^-8."""
PAIRS = 16
STEPS = 6
"""Of a run that is stopped in its middle."""


def items(bench: Bench) -> Iterator[tuple[str, Work]]:
    """Determinism first: cuBLAS reads its setting when it starts."""
    for name in NETWORKS:
        yield f"{name}: resume to the bit", partial(_resume, bench, name)
    yield "fclip_unet: cohort equals runs alone", partial(_cohort, bench)
    for name in NETWORKS:
        yield f"{name}: equals the CPU", partial(_equals_cpu, bench, name)
    yield "clip_rpn: routes equal the CPU's", partial(_routes, bench)
    for name in NETWORKS:
        yield f"{name}: predictor without TF32", partial(_predictor, bench, name)
    for name in THREE:
        yield f"{name}: micro-batches auto", partial(_micro_batches, bench, name)


def _resume(bench: Bench, name: str) -> Mapping[str, Any]:
    """A run that stops after half of its steps and goes on, against one that does not."""
    config = _short(bench, name)
    shutil.rmtree(bench.out / "runs", ignore_errors=True)
    once = _trained(config.replaced({"name": f"{name}-once"}, "benchmark"), bench)
    twice = config.replaced({"name": f"{name}-twice"}, "benchmark")
    _trained(twice, bench, until=STEPS // 2)
    resumed = _trained(twice, bench)
    return {"ok": once == resumed, "equal_to_the_bit": once == resumed}


def _cohort(bench: Bench) -> Mapping[str, Any]:
    """Three members that share encoder and batches, against the same runs alone."""
    common = _short(bench, "fclip_unet")
    sigmas = {"none": None, "paper": (0.01, 0.03, 0.06, 0.1), "much": (0.1, 0.1, 0.2, 0.3)}
    alone, members = [], []
    for name, sigma in sigmas.items():
        values = {"model.ldfps_sigma": sigma, "data.seed": 0}
        alone.append(_trained(common.replaced({**values, "name": f"{name}-alone"}, "b"), bench))
        members.append(common.replaced({**values, "name": f"{name}-member"}, "b"))
    shared = SharedModules()
    for config in members:
        shutil.rmtree(config.folder, ignore_errors=True)
    cohort = Cohort({each.name: _run(each, bench, shared=shared) for each in members}, shared)
    cohort.drive(_loader(members[0]).batch, members[0].train)
    together = [checkpoint.newest(each.folder).weights_sha256() for each in members]
    return {"ok": alone == together and not cohort.failed, "equal_to_the_bit": alone == together}


def _equals_cpu(bench: Bench, name: str) -> Mapping[str, Any]:
    """Forward pass and gradients of the paper's loss, in float32, with TF32, and in bfloat16."""
    changes: dict[str, Any] = {"train__precision": "fp32"}
    if name == "fclip_unet":
        changes["model__ldfps_sigma"] = None  # its noise is the device's
    config = paper(bench, name, **changes)
    network = _jiggled(build_network(config))
    side = config.train.crop_px if bench.small else 128
    cpu = torch.device("cpu")
    expected = _pass(config.replaced({"train.device": "cpu"}, "b"), network, cpu, side)
    found: dict[str, Any] = {}
    ok = True
    for kind, precision, tf32, limits in (
        ("fp32", "fp32", False, (IMAGE, GRADIENT)),
        ("tf32", "fp32", True, (ROUNDED_IMAGE, ROUNDED_GRADIENT)),
        ("bf16", "bf16", False, (ROUNDED_IMAGE, ROUNDED_GRADIENT)),
    ):
        given = config.replaced({"train.precision": precision}, "b")
        with _TF32(tf32):
            errors = [
                _error(value, reference, against)
                for value, reference, against in zip(
                    _pass(given, network, bench.device, side),
                    expected,
                    _against(expected),
                    strict=False,
                )
            ]
        found |= {f"{kind}_image": errors[0], f"{kind}_gradient": errors[1]}
        ok &= all(error <= limit for error, limit in zip(errors, limits, strict=True))
    return {"ok": ok, **found}


def _routes(bench: Bench) -> Mapping[str, Any]:
    """The experts that CLIP chooses, with random weights, for noise of different brightness."""
    network = build_network(paper(bench, "clip_rpn", model__routing="hard")).eval()
    shade = np.linspace(0.1, 1, PAIRS)[:, None, None, None, None]
    pixels = NoisePairs(PAIRS, 96)
    pixels._pairs = (pixels._pairs * shade).astype(np.uint8)
    routes = []
    for device in (torch.device("cpu"), bench.device):
        network.to(device)
        chosen = [network.perceive(images).cpu() for _, images in rainy_batches(pixels, device)]
        routes.append(torch.cat(chosen).tolist())
    return {"ok": routes[0] == routes[1], "experts": len(set(routes[0])), "of": PAIRS}


def _predictor(bench: Bench, name: str) -> Mapping[str, Any]:
    """Levels of an image as on the CPU, whatever the process allows to be rounded."""
    network = _jiggled(build_network(paper(bench, name))).eval()
    side = (64, 96) if bench.small else (321, 481)
    image = np.random.default_rng(0).integers(0, 256, (*side, 3), np.uint8)
    expected = Predictor(copy.deepcopy(network), "cpu").levels(image)
    predictor = Predictor(network, bench.device)
    levels = {}
    for tf32 in (False, True):
        with _TF32(tf32):
            levels[tf32] = predictor.levels(image)
            with torch.inference_mode():
                rainy = predictor._tensor(image[None, : side[0] // 32 * 32, : side[1] // 32 * 32])
                levels[tf32, "unguarded"] = network.eval()(rainy).float().cpu().numpy() * 255
    off, on = (np.abs(levels[tf32] - expected).max().item() for tf32 in (False, True))
    unguarded = np.abs(levels[False, "unguarded"] - levels[True, "unguarded"]).max().item()
    return {"ok": max(off, on) < 0.05, "off": off, "on": on, "without_our_guard": unguarded}


def _micro_batches(bench: Bench, name: str) -> Mapping[str, Any]:
    """`auto` on a batch that no GPU holds: it survives the error, and the step is the right one."""
    changes: dict[str, Any] = {
        "train__precision": "bf16",
        "train__optimizer": {"name": "sgd"},
        "train__lr": 1.0,
        "train__lr_min": 1.0,
        "train__clip_norm": None,
        "train__weight_decay": 0.0,
        "train__batch_size": 16 if bench.small else 4096,
        "loss": {"pixel": "l1", "perceptual": "none"},
    }
    if name == "fclip_unet":
        changes["model__ldfps_sigma"] = None
    if name == "rdmc":
        changes["model__norm"] = "group"  # BatchNorm's statistics are those of a micro-batch
    moved, shares = [], []
    for size in ("auto", 8 if bench.small else 64):
        config = paper(bench, name, **changes, train__micro_batch_size=size)
        torch.manual_seed(0)
        network = build_network(config)
        before = _flat(trained_parameters(network).values()).cpu()
        loss = loss_of(config, network)
        trainer = Trainer(config, network, loss, device=bench.device, rank=Rank())
        batch = random_batch(config, bench.device, config.train.batch_size, config.train.crop_px)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.step(0, batch)
        if bench.device.type == "cuda":
            total = torch.cuda.get_device_properties(bench.device).total_memory
            shares.append(torch.cuda.max_memory_allocated() / total)
        moved.append(_flat(trained_parameters(network).values()).cpu() - before)
        if size == "auto":
            found = dict(trainer._micro_batches._size_by_crop_px)
        del trainer, network, batch, loss
    error = _error(moved[0], moved[1], moved[1])
    return {
        "ok": error < 0.05,
        "of": changes["train__batch_size"],
        "micro_batch": next(iter(found.values())),
        "memory_share": shares[0] if shares else None,
        "error": error,
    }


def _short(bench: Bench, name: str) -> Config:
    config = paper(
        bench,
        name,
        train__deterministic=True,
        train__batch_size=4,
        train__crop_px=32 if bench.small else 64,
        train__checkpoint_every_steps=STEPS // 2,
        train__steps=STEPS,
        train__log_every_steps=1,
        train__eval_every_steps=None,
        train__use_checkpoint="last",
    )
    return config.replaced({"output_dir": str(bench.out / "runs")}, "benchmark")


def _trained(config: Config, bench: Bench, until: int | None = None) -> str:
    """Train a run to its end, or to `until`; the digest of its weights.

    It goes on from its newest checkpoint, and one that has reached its end leaves none.
    """
    run = _run(config, bench, until=until)
    drive(run, _loader(config).batch, config.train)
    saved = checkpoint.newest(config.folder)
    assert saved is not None
    digest = saved.weights_sha256()
    if saved.state.step == config.train.steps:
        shutil.rmtree(config.folder)
    return digest


def _loader(config: Config) -> Loader:
    recipe = Recipe(sizes=(PAIRS,), seed=config.data_seed)
    return Loader([NoisePairs(PAIRS, 96)], recipe, config.train.stages)


def _run(
    config: Config, bench: Bench, *, until: int | None = None, shared: SharedModules | None = None
) -> Run:
    return Run(
        config=config,
        trainer=trainer_of(config, bench.device, shared),
        folder=config.folder,
        report=lambda *_: None,
        manifests=["noise"],
        resume=checkpoint.newest(config.folder),
        until=until,
    )


def _jiggled(network: nn.Module) -> nn.Module:
    """The network with noise on all weights: some begin as zeros, which would hide what follows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in trained_parameters(network).values():
            scale = 0.02 if weight.dim() < 2 else 0.1 * float(weight.std(correction=0) or 0.1)
            weight += scale * torch.randn(weight.shape, generator=generator)
    return network


def _pass(
    config: Config, network: nn.Module, device: torch.device, side_px: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The image of a forward pass, the gradients of the loss, and the rainy image."""
    network = copy.deepcopy(network)
    trainer = Trainer(config, network, loss_of(config, network), device=device, rank=Rank())
    batch = random_batch(config, device, 2, side_px)
    with torch.no_grad(), trainer._autocast():
        image = network.eval()(batch.rain).float().cpu()
    network.train()
    trainer.begin_step(0)
    total, _ = trainer.losses(batch, 0.0)
    total.backward()
    gradients = [w.grad for w in trained_parameters(network).values() if w.grad is not None]
    return image, _flat(gradients).cpu(), batch.rain.cpu()


def _against(expected: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    image, gradient, rain = expected
    return image - rain, gradient


def _error(value: Tensor, reference: Tensor, against: Tensor) -> float:
    difference = (value.double() - reference.double()).norm() / against.double().norm()
    return difference.item()


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])


class _TF32:
    """Whether convolutions and matrix products may round to TF32 in a block."""

    def __init__(self, allowed: bool) -> None:
        self._allowed = allowed

    def __enter__(self) -> None:
        self._before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = self._allowed
        torch.backends.cuda.matmul.allow_tf32 = self._allowed

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._before
