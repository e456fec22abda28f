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


@torch.no_grad()
def test_the_output_is_that_of_the_layer(layer):
    x = torch.randn(LARGE)
    torch.testing.assert_close(in_slabs(layer, x, hidden=HIDDEN), layer(x))


@torch.no_grad()
def test_no_slab_holds_more_than_the_cache(layer):
    x = torch.randn(LARGE)
    seen = sizes_seen(layer, x)
    assert max(seen) * HIDDEN <= SLAB
    assert sum(seen) == x.shape[:-1].numel()


@torch.no_grad()
def test_what_the_cache_holds_anyway_is_not_cut(layer):
    assert sizes_seen(layer, torch.randn(CACHED // HIDDEN, 4)) == [CACHED // HIDDEN]


def test_where_there_is_a_gradient_nothing_is_cut(layer):
    assert sizes_seen(layer, torch.randn(LARGE)) == [18432]


def test_a_graph_has_the_whole_layer():
    class Sliced(nn.Module):
        def forward(self, x):
            return in_slabs(F.relu, x, hidden=HIDDEN)

    graph = torch.export.export(Sliced(), (torch.randn(LARGE),)).graph
    assert sum("relu" in str(node.target) for node in graph.nodes) == 1
