"""NAFNet: its block and its stride."""

import torch

from derain.models.networks.nafnet import NAFBlock, NAFNet
from tests.models.formulas import naf_block, randomised, state_of


def test_a_block_starts_as_the_identity():
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(NAFBlock(4)(x), x)


def test_a_block_is_the_formula():
    block, x = randomised(NAFBlock(6)), torch.randn(2, 6, 5, 7)
    names = {
        "norm1": "norm",
        "conv1": "expand",
        "conv2": "depthwise",
        "sca.1": "attend",
        "conv3": "project",
        "norm2": "ffn_norm",
        "conv4": "ffn_expand",
        "conv5": "ffn_project",
    }
    state = {}
    for key, value in state_of(block).items():
        layer, _, parameter = key.rpartition(".")
        state[f"{names[layer]}.{parameter}" if layer else parameter] = value
    expected = naf_block(x.double(), state, eps=1e-6)
    torch.testing.assert_close(block(x).double(), expected, rtol=1e-4, atol=1e-4)


def test_the_stride_follows_the_number_of_levels():
    assert NAFNet(width=4, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)).stride == 8
