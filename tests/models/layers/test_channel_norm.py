"""LayerNorm over the channels of each pixel."""

import pytest
import torch

from derain.models.layers.channel_norm import ChannelNorm
from tests.models.formulas import normalised, randomised, state_of


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_it_is_the_formula(eps):
    norm, x = randomised(ChannelNorm(6, eps=eps)), torch.randn(2, 6, 5, 4)
    expected = normalised(x.double(), state_of(norm), eps)
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-4, atol=1e-5)


def test_channels_last_stays_channels_last():
    x = torch.randn(2, 6, 5, 4).to(memory_format=torch.channels_last)
    assert ChannelNorm(6)(x).is_contiguous(memory_format=torch.channels_last)
