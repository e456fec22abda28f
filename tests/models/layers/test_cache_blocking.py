"""A layer in blocks of rows gives the same output, with fewer pixels at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from derain.models.layers.cache_blocking import (
    BLOCK_VALUES,
    MAX_UNBLOCKED_VALUES,
    run_in_row_blocks,
)

HIDDEN = 512
LARGE = (2, 4, 96, 96)
"""More than MAX_UNBLOCKED_VALUES / HIDDEN pixels, not a whole number of blocks."""


@pytest.fixture
def layer():
    return nn.Sequential(nn.Conv2d(4, HIDDEN, 1), nn.GELU(), nn.Conv2d(HIDDEN, 3, 1))


def block_heights(layer, x, **options):
    heights = []

    def recording(rows):
        heights.append(rows.shape[2])
        return layer(rows)

    run_in_row_blocks(recording, x, **{"hidden": HIDDEN, **options})
    return heights


@torch.no_grad()
def test_the_output_is_that_of_the_layer(layer):
    x = torch.randn(LARGE)
    torch.testing.assert_close(run_in_row_blocks(layer, x, hidden=HIDDEN), layer(x))


@torch.no_grad()
@pytest.mark.parametrize("reach", [1, 2])
def test_a_layer_gets_the_rows_within_its_reach(reach):
    x = torch.randn(LARGE)
    layer = nn.Conv2d(4, 3, 2 * reach + 1, padding=reach)  # its padding is outside the image only
    torch.testing.assert_close(run_in_row_blocks(layer, x, hidden=HIDDEN, reach=reach), layer(x))
    heights = block_heights(layer, x, hidden=BLOCK_VALUES, reach=reach)
    assert max(heights) == 10 * reach
    assert heights[0] == 9 * reach


@torch.no_grad()
def test_no_block_exceeds_the_cache(layer):
    heights = block_heights(layer, torch.randn(LARGE))
    assert max(heights) * LARGE[3] * HIDDEN <= BLOCK_VALUES
    assert sum(heights) == LARGE[0] * LARGE[2]


@torch.no_grad()
def test_a_small_image_is_not_split(layer):
    height = MAX_UNBLOCKED_VALUES // HIDDEN // 64
    assert block_heights(layer, torch.randn(1, 4, height, 64)) == [height]


def test_nothing_is_split_with_gradients(layer):
    assert block_heights(layer, torch.randn(LARGE)) == [96]


def test_an_exported_graph_has_the_whole_layer():
    class Blocked(nn.Module):
        def forward(self, x):
            return run_in_row_blocks(F.relu, x, hidden=HIDDEN)

    graph = torch.export.export(Blocked(), (torch.randn(LARGE),)).graph
    assert sum("relu" in str(node.target) for node in graph.nodes) == 1
