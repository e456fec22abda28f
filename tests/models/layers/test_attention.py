"""Attention within windows and across channels, compared with PyTorch's and with the formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from derain.models.layers.attention import ChannelAttention, WindowAttention
from tests.models.formulas import convolved, transposed_attention

CHANNELS, HEADS = 8, 2


def qkv(height, width):
    return torch.randn(3, 2, CHANNELS, height, width).unbind()


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 5)])
def test_windows_are_attention_of_each_window_alone(height, width):
    """Windows of 4 px; those at the border are smaller."""
    q, k, v = qkv(height, width)
    bias = torch.randn(2, 1, height, width)
    found = WindowAttention(HEADS, 4)(q, k, v, bias)
    for top in range(0, height, 4):
        for left in range(0, width, 4):
            area = (..., slice(top, top + 4), slice(left, left + 4))
            heads = [t[area].flatten(2).unflatten(1, (HEADS, -1)).mT for t in (q, k, v)]
            keys = bias[area].flatten(2)[:, :, None]
            y = F.scaled_dot_product_attention(*heads, attn_mask=keys).mT.flatten(1, 2)
            torch.testing.assert_close(found[area].flatten(2), y, rtol=1e-4, atol=1e-5)


def test_channel_attention_is_the_formula():
    attention, project = ChannelAttention(HEADS), nn.Conv2d(CHANNELS, CHANNELS, 1)
    nn.init.uniform_(attention.temperature, 0.5, 3.0)
    q, k, v = qkv(6, 5)
    temperature = attention.temperature.detach().double()
    expected = transposed_attention(q.double(), k.double(), v.double(), temperature)
    weights = {name: t.detach().double() for name, t in project.state_dict().items()}
    found = attention(q, k, v, project).double()
    torch.testing.assert_close(found, convolved(expected, weights), rtol=1e-4, atol=1e-5)


def test_the_memory_of_windows_is_linear_in_the_image():
    """Four times the pixels store four times the values for the backward pass, not sixteen."""

    def stored(side):
        attention, sizes = WindowAttention(HEADS, 8), []
        q, k, v = (torch.rand(1, CHANNELS, side, side, requires_grad=True) for _ in range(3))
        bias = torch.zeros(1, 1, side, side, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            attention(q, k, v, bias)
        return sum(sizes)

    assert stored(64) == pytest.approx(4 * stored(32), rel=0.05)
