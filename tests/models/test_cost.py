"""Parameters and multiply-adds, compared with counts by hand."""

import torch
from torch import nn

import derain.models as models
from derain.models.cost import cost
from derain.models.encoders.build import build_encoder


def test_convolutions_are_counted_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1, stride=2))
    network[1].requires_grad_(False)
    counted = cost(network.train(), side_px=32)
    assert counted.trained_parameters == 3 * 8 * 9 + 8
    assert counted.frozen_parameters == 8 * 3 + 3
    assert counted.macs == 32 * 32 * 3 * 8 * 9 + 16 * 16 * 8 * 3
    assert network.training


def test_attention_is_counted():
    """A block of a ViT: 12 d^2 per token, and 2 d per pair of tokens."""
    width, blocks, tokens = 64, 4, 1 + 4 * 4
    encoder = build_encoder("clip_vit_b32", "random", (blocks,), width)
    per_block = tokens * 12 * width**2 + 2 * tokens**2 * width
    patches = 16 * 3 * 32 * 32 * width
    assert cost(encoder, side_px=128).macs == blocks * per_block + patches


def test_the_cost_of_a_network_with_experts_is_that_of_one_image():
    sizes = {"widths": (8, 16), "depths": (1, 1), "heads": (1, 1), "mgca": ("none",)}
    one = models.build("clip_rpn", routing="single", **sizes)
    many = models.build("clip_rpn", routing="random", **sizes)
    torch.manual_seed(0)
    assert cost(many, side_px=32).macs == cost(one, side_px=32).macs
    assert cost(many, 32).trained_parameters == 3 * cost(one, 32).trained_parameters
