"""The gated feed-forward layer is its formula, whole or in blocks of rows, with gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from derain.models.layers import cache_blocking
from derain.models.layers.gated_ffn import GatedFFN, gated_ffn, simple_gate

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
        inputs = (x, *layers.parameters())
        found.append((y, *torch.autograd.grad(y.sin().sum(), inputs)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_blocks_are_padded_at_the_edges_of_the_image_only(monkeypatch):
    monkeypatch.setattr(cache_blocking, "MAX_UNBLOCKED_VALUES", 0)
    monkeypatch.setattr(cache_blocking, "BLOCK_VALUES", 0)
    layers, x, heights = parts(), image(height=27), []
    layers[0].register_forward_pre_hook(lambda _, args: heights.append(args[0].shape[2]))
    torch.testing.assert_close(gated_ffn(x, *layers), formula(x, *layers))
    assert heights == [9, 10, 10, 4, 9, 10, 10, 4, 27]


def test_the_module_has_the_stated_width_and_formula():
    ffn, x = GatedFFN(CHANNELS, 2.66).double(), image()
    assert ffn.project.in_channels == int(CHANNELS * 2.66)
    norm = nn.Identity()
    expected = formula(x, norm, ffn.expand, ffn.depthwise, ffn.project)
    torch.testing.assert_close(ffn(x, norm), expected)


def test_the_simple_gate_multiplies_the_halves_of_the_channels():
    x = image()
    assert torch.equal(simple_gate(x), x[:, :2] * x[:, 2:])
