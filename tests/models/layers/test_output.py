"""The last layer of a network: float32 under autocast, small weights at the start."""

import torch
from torch import nn

from derain.models.layers.output import float32_output, start_near_zero


def test_the_output_is_float32_under_autocast():
    layer, x = nn.Conv2d(4, 3, 1), torch.randn(1, 4, 2, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        output = float32_output(layer, x)
    assert torch.equal(output, layer(x.float()))


def test_the_initial_weights_are_divided_by_100_and_still_trained():
    layer = nn.Conv2d(4, 3, 1)
    before = [p.detach().clone() for p in layer.parameters()]
    assert start_near_zero(layer) is layer
    for parameter, original in zip(layer.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), original / 100)
        assert parameter.requires_grad
