"""A layer in slabs is the layer itself, on fewer pixels at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from derain.models.layers.slabs import CACHED, SLAB, in_slabs

HIDDEN = 512
LARGE = (2, 4, 96, 96)
"""More than CACHED / HIDDEN pixels, no whole number of slabs."""


@pytest.fixture
def layer():
    return nn.Sequential(nn.Conv2d(4, HIDDEN, 1), nn.GELU(), nn.Conv2d(HIDDEN, 3, 1))


def heights_seen(layer, x, **options):
    seen = []

    def watched(rows):
        seen.append(rows.shape[2])
        return layer(rows)

    in_slabs(watched, x, **{"hidden": HIDDEN, **options})
    return seen


@torch.no_grad()
def test_the_output_is_that_of_the_layer(layer):
    x = torch.randn(LARGE)
    torch.testing.assert_close(in_slabs(layer, x, hidden=HIDDEN), layer(x))


@torch.no_grad()
@pytest.mark.parametrize("reach", [1, 2])
def test_a_layer_sees_the_rows_that_it_reaches(reach):
    x = torch.randn(LARGE)
    layer = nn.Conv2d(4, 3, 2 * reach + 1, padding=reach)  # what it pads with is seen outside only
    torch.testing.assert_close(in_slabs(layer, x, hidden=HIDDEN, reach=reach), layer(x))
    seen = heights_seen(layer, x, hidden=SLAB, reach=reach)
    assert max(seen) == 10 * reach
    assert seen[0] == 9 * reach


@torch.no_grad()
def test_no_slab_holds_more_than_the_cache(layer):
    seen = heights_seen(layer, torch.randn(LARGE))
    assert max(seen) * LARGE[3] * HIDDEN <= SLAB
    assert sum(seen) == LARGE[0] * LARGE[2]


@torch.no_grad()
def test_what_the_cache_holds_anyway_is_not_cut(layer):
    height = CACHED // HIDDEN // 64
    assert heights_seen(layer, torch.randn(1, 4, height, 64)) == [height]


def test_where_there_is_a_gradient_nothing_is_cut(layer):
    assert heights_seen(layer, torch.randn(LARGE)) == [96]


def test_a_graph_has_the_whole_layer():
    class Sliced(nn.Module):
        def forward(self, x):
            return in_slabs(F.relu, x, hidden=HIDDEN)

    graph = torch.export.export(Sliced(), (torch.randn(LARGE),)).graph
    assert sum("relu" in str(node.target) for node in graph.nodes) == 1
