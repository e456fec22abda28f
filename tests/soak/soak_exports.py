"""Every network as ONNX, as a torch.export program and compiled by inductor: the same images.

Part of `make soak`; prints the largest difference to eager mode. The test suite exports only some
networks: ONNX export and a C++ compiler take minutes for all of them.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from derain.inference.exported import SUFFIXES, export, load_exported
from derain.models import trained_parameters
from tests.inference.small_networks import NETWORKS, TOLERANCE, network

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
"""Options of torch.compile. With NHWC features, which inductor prefers, torch 2.15 fails: the
gradient of replication padding does not have the strides that it declares."""
SIZES = [(1, 3, 64, 96), (1, 3, 96, 64)]


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(size, generator=generator) for size in SIZES]


@torch.no_grad()
def largest_difference(ours: Any, other: Any, inputs: list[torch.Tensor]) -> float:
    return max(float((ours(x) - other(x)).abs().max()) for x in inputs)


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("name", SMALL)
def test_an_exported_file_gives_the_networks_images_at_every_size(
    tmp_path: Path, name: str, kind: Any
) -> None:
    path = export(network(name, **SMALL[name]), tmp_path / f"net{SUFFIXES[kind]}", kind)
    ours = network(name, **SMALL[name])
    found = load_exported(path, trust=True)
    difference = largest_difference(lambda x: ours(x).clamp(0, 1), found, images())
    print(f"\n{name} {kind}: {difference:.1e}")
    assert difference < TOLERANCE


@pytest.mark.parametrize("name", SMALL)
def test_compiled_equals_eager(name: str) -> None:
    """Image and gradients of a training step with inductor's kernels."""
    torch._dynamo.reset()
    ours, x = network(name, **SMALL[name]).train(), images()[0]
    results = []
    for run in (ours, torch.compile(ours, options=COMPILING.get(name))):
        ours.zero_grad()
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = run(x)
            image.square().mean().backward()
        grads = [p.grad for p in trained_parameters(ours).values() if p.grad is not None]
        results.append((image.detach(), torch.cat([grad.flatten() for grad in grads])))
    (eager, expected), (compiled, gradients) = results
    error = float((gradients - expected).norm() / expected.norm())
    print(f"\n{name} compiled: {float((compiled - eager).abs().max()):.1e}, gradients {error:.1e}")
    assert error < 1e-4
    torch.testing.assert_close(compiled, eager, rtol=0, atol=TOLERANCE)
