"""Restormer's attention, compared with numpy."""

import numpy as np
import torch

from derain.models.networks.restormer import Attention


def test_attention_is_the_formula():
    """Without the two convolutions before it: q, k and v are given."""
    layer = Attention(4, 2)
    qkv = torch.randn(1, 12, 3, 5)
    layer.qkv, layer.qkv_dwconv, layer.project_out = (torch.nn.Identity() for _ in range(3))
    with torch.no_grad():
        layer.temperature.copy_(torch.tensor([0.5, 2.0]).view(2, 1, 1))
    q, k, v = qkv.double().numpy().reshape(3, 2, 2, 15)
    expected = np.empty((2, 2, 15))
    for head, temperature in enumerate((0.5, 2.0)):
        a = q[head] / np.linalg.norm(q[head], axis=1, keepdims=True)
        b = k[head] / np.linalg.norm(k[head], axis=1, keepdims=True)
        logits = np.exp(temperature * a @ b.T)
        expected[head] = logits / logits.sum(1, keepdims=True) @ v[head]
    torch.manual_seed(0)
    found = _attend(layer, qkv)
    np.testing.assert_allclose(found.reshape(2, 2, 15), expected, rtol=1e-4, atol=1e-5)


def _attend(layer, qkv):
    """`Attention.forward` takes as many channels as it returns; qkv has three times as many."""

    class Threefold(torch.nn.Module):
        def forward(self, x):
            return qkv if x.shape[1] == 4 else x

    layer.qkv = Threefold()
    return layer(torch.zeros(1, 4, 3, 5)).detach().numpy()
