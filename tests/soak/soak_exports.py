"""Every network as ONNX, as a torch.export program and compiled by inductor: the same images.

Part of `make soak`; prints the largest difference to eager. Tests have small ones of the three
papers' networks already; ONNX and a C++ compiler take minutes for all.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from derain.inference.exported import SUFFIXES, export, load_exported
from derain.models import build, trained_parameters
from tests.inference.test_exported import NETWORKS, TOLERANCE, network

SMALL: dict[str, dict[str, Any]] = {
    **NETWORKS,
    "restormer": {
        "width": 8,
        "blocks": (1, 1, 1, 1),
        "heads": (1, 2, 2, 2),
        "refinement_blocks": 1,
    },
    "mprnet": {"width": 8, "unet_growth": 4, "full_growth": 4, "blocks": 1},
}
COMPILING: dict[str, dict[str, bool]] = {"rdmc": {"layout_optimization": False}}
"""Inductor turns features to NHWC, where torch 2.15 states other strides for the gradient of
replication padding than it has, and stops."""
SIZES = [(1, 3, 64, 96), (1, 3, 96, 64)]


def made(name: str) -> torch.nn.Module:
    if name in NETWORKS:
        return network(name)
    torch.manual_seed(0)
    found = build(name, **SMALL[name])
    for parameter in trained_parameters(found).values():
        torch.nn.init.normal_(parameter, std=0.1)
    return found.eval()


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(size, generator=generator) for size in SIZES]


@torch.no_grad()
def difference(ours: torch.nn.Module, other: Any, given: list[torch.Tensor]) -> float:
    return max(float((ours(x) - other(x)).abs().max()) for x in given)


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("name", SMALL)
def test_a_file_is_the_network_at_every_size(tmp_path: Path, name: str, kind: Any) -> None:
    path = export(made(name), tmp_path / f"net{SUFFIXES[kind]}", kind)
    found = difference(made(name), load_exported(path, trust=True), images())
    print(f"\n{name} {kind}: {found:.1e}")
    assert found < TOLERANCE


@pytest.mark.parametrize("name", SMALL)
def test_compiled_is_eager(name: str) -> None:
    """Inductor's own kernels: image and gradients of a training step."""
    torch._dynamo.reset()
    ours, x = made(name).train(), images()[0]
    found = []
    for run in (ours, torch.compile(ours, options=COMPILING.get(name))):
        ours.zero_grad()
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = run(x)
            image.square().mean().backward()
        grads = [p.grad for p in trained_parameters(ours).values() if p.grad is not None]
        found.append((image.detach(), torch.cat([grad.flatten() for grad in grads])))
    (eager, wanted), (compiled, gradients) = found
    off = float((gradients - wanted).norm() / wanted.norm())
    print(f"\n{name} compiled: {float((compiled - eager).abs().max()):.1e}, gradients {off:.1e}")
    assert off < 1e-4
    torch.testing.assert_close(compiled, eager, rtol=0, atol=TOLERANCE)
