"""The gated feed-forward part is its formula, whole or in slabs, with its gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from derain.models.layers import slabs
from derain.models.layers.gated_ffn import gated_ffn

CHANNELS, HIDDEN = 4, 5


def parts(bias=True):
    torch.manual_seed(0)
    expand = nn.Conv2d(CHANNELS, 2 * HIDDEN, 1, bias=bias)
    depthwise = nn.Conv2d(2 * HIDDEN, 2 * HIDDEN, 3, padding=1, groups=2 * HIDDEN, bias=bias)
    project = nn.Conv2d(HIDDEN, CHANNELS, 1, bias=bias)
    return nn.ModuleList((nn.BatchNorm2d(CHANNELS).eval(), expand, depthwise, project)).double()


def formula(x, norm, expand, depthwise, project):
    a, b = depthwise(expand(norm(x))).chunk(2, dim=1)
    return x + project(F.gelu(a) * b)


def image(height=7, width=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, CHANNELS, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(7, 5), (1, 1)])
def test_output_and_gradients_are_those_of_the_formula(bias, size):
    layers, found = parts(bias), []
    for function in (gated_ffn, formula):
        x = image(*size).requires_grad_()
        y = function(x, *layers)
        wanted = (x, *layers.parameters())
        found.append((y, *torch.autograd.grad(y.sin().sum(), wanted)))
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain)


@torch.no_grad()
def test_slabs_see_the_edges_of_the_image_and_not_their_own(monkeypatch):
    monkeypatch.setattr(slabs, "CACHED", 0)
    monkeypatch.setattr(slabs, "SLAB", 0)
    layers, x, seen = parts(), image(height=27), []
    layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2]))
    torch.testing.assert_close(gated_ffn(x, *layers), formula(x, *layers))
    assert seen == [9, 10, 10, 4, 9, 10, 10, 4, 27]
