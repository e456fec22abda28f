"""A layer in slabs is the layer itself, on fewer pixels at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from derain.models.slabs import CACHED, SLAB, in_slabs

HIDDEN = 512
LARGE = (2, 96, 96, 4)
"""Batch, height, width, channels: more than CACHED / HIDDEN pixels, no whole number of slabs."""


@pytest.fixture
def layer():
    return nn.Sequential(nn.Linear(4, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 3))


def sizes_seen(layer, x):
    seen = []

    def watched(pixels):
        seen.append(pixels.shape[:-1].numel())
        return layer(pixels)

    in_slabs(watched, x, hidden=HIDDEN)
    return seen


def test_output_and_gradients_are_those_of_the_layer(layer):
    x = torch.randn(LARGE, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))
    found = in_slabs(layer, x, hidden=HIDDEN)
    torch.testing.assert_close(found, layer(x))
    gradients = torch.autograd.grad(found.square().sum(), (x, *layer.parameters()))
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_no_slab_holds_more_than_the_cache(layer):
    x = torch.randn(LARGE)
    seen = sizes_seen(layer, x)
    assert max(seen) * HIDDEN <= SLAB
    assert sum(seen) == x.shape[:-1].numel()


@torch.no_grad()
def test_what_the_cache_holds_anyway_is_not_cut(layer):
    assert sizes_seen(layer, torch.randn(CACHED // HIDDEN, 4)) == [CACHED // HIDDEN]


def test_the_backward_pass_keeps_no_hidden_layer(layer):
    kept = []
    x = torch.randn(LARGE, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        in_slabs(layer, x, hidden=HIDDEN)
    assert max(kept, default=0) < x.shape[:-1].numel() * HIDDEN // 8


def test_a_graph_has_the_whole_layer():
    class Sliced(nn.Module):
        def forward(self, x):
            return in_slabs(F.relu, x, hidden=HIDDEN)

    graph = torch.export.export(Sliced(), (torch.randn(LARGE),)).graph
    assert sum("relu" in str(node.target) for node in graph.nodes) == 1
