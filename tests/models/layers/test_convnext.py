"""ConvNeXt and upsampling blocks, compared with formulas written independently."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from derain.models.layers.convnext import BilinearUp, ConvNeXtBlock, DropPath, UpDWBlock


def test_convnext_block_matches_numpy():
    block = ConvNeXtBlock(6, layer_scale=0.7)
    x = torch.randn(2, 6, 9, 8)
    p = {k: v.detach().double().numpy() for k, v in block.named_parameters()}
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(2, 3))
    y = np.einsum("nchwij,cij->nhwc", windows, p["depthwise.weight"][:, 0]) + p["depthwise.bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = (y * p["norm.weight"] + p["norm.bias"]) @ p["expand.weight"].T + p["expand.bias"]
    y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    y = p["gamma"] * (y @ p["project.weight"].T + p["project.bias"])
    expected = x.numpy() + y.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, atol=1e-5)


def test_updw_block_is_two_paths_over_one_upsampling():
    block = UpDWBlock(6, 4)
    x = torch.randn(2, 6, 5, 7)
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(x)
    main = block.pointwise(nn.GELU()(block.depthwise(up)))
    torch.testing.assert_close(block(x), main + block.shortcut(up))
    assert block(x).shape == (2, 4, 10, 14)


def test_bilinear_up_is_the_same_in_the_other_order():
    block = BilinearUp(6, 4)
    x = torch.randn(2, 6, 5, 7)
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(x)
    torch.testing.assert_close(block(x), block.pointwise(up), rtol=1e-5, atol=1e-6)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    module = DropPath(0.25).train()
    y = module(torch.ones(4000, 2, 1, 1))
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(y[:, 0], y[:, 1])
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(module.eval()(y), y)


def test_a_drop_path_of_one_is_refused():
    with pytest.raises(ValueError, match="drop_path"):
        DropPath(1.0)
