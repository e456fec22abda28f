"""Mask-guided cross-attention, compared with its formulas in numpy."""

import math

import numpy as np
import pytest
import torch

from derain.models.layers.mgca import MGCA, CrossAttention
from tests.models.formulas import (
    convolved,
    gated_ffn,
    gelu,
    normalised,
    part,
    randomised,
    state_of,
)

CHANNELS, HEADS, SIDE = 8, 2, 4


def features(batch=2, height=12, width=8):
    return torch.randn(batch, CHANNELS, height, width, generator=torch.Generator().manual_seed(2))


def target(x):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(x.shape[0], 1, *x.shape[2:], generator=generator)


def matrices(block):
    """W_q, W_k, W_v, W_o as (out, in) and the bias of W_o, float64."""
    q, k, v = block.project.weight.detach().double().numpy()[:, :, 0, 0].reshape(3, CHANNELS, -1)
    out = block.out.weight.detach().double().numpy()[:, :, 0, 0]
    return q, k, v, out, block.out.bias.detach().double().numpy()


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def windowed(block, x, mask):
    """The formula, pixel by pixel; windows end at the border of the image."""
    w_q, w_k, w_v, w_o, b_o = matrices(block)
    x, mask = x.double().numpy(), mask.double().numpy()
    out, depth = np.zeros_like(x), CHANNELS // HEADS
    batch, _, height, width = x.shape
    for n in range(batch):
        for top in range(0, height, SIDE):
            for left in range(0, width, SIDE):
                area = (n, slice(None), slice(top, top + SIDE), slice(left, left + SIDE))
                pixels = x[area].reshape(CHANNELS, -1)
                m = mask[area].reshape(1, -1)
                q, k, v = w_q @ (pixels * m), w_k @ (pixels * (1 - m)), w_v @ (pixels * (1 - m))
                found = np.zeros_like(pixels)
                for h in range(HEADS):
                    rows = slice(h * depth, (h + 1) * depth)
                    logits = q[rows].T @ k[rows] / math.sqrt(depth) + np.log(1e-4 + 1 - m)
                    found[rows] = (softmax(logits) @ v[rows].T).T
                changed = m * (w_o @ found + b_o[:, None])
                out[area] = changed.reshape(out[area].shape)
    return out


def channelwise(block, x, mask):
    w_q, w_k, w_v, w_o, b_o = matrices(block)
    heat = block.channels.temperature.detach().double().numpy().ravel()
    x, mask = x.double().numpy(), mask.double().numpy()
    out, depth = np.zeros_like(x), CHANNELS // HEADS
    for n in range(len(x)):
        pixels, m = x[n].reshape(CHANNELS, -1), mask[n].reshape(1, -1)
        q, k, v = w_q @ (pixels * m), w_k @ pixels, w_v @ pixels
        found = np.zeros_like(pixels)
        for h in range(HEADS):
            rows = slice(h * depth, (h + 1) * depth)
            a, b = (t[rows] / np.linalg.norm(t[rows], axis=1, keepdims=True) for t in (q, k))
            found[rows] = softmax(heat[h] * a @ b.T) @ v[rows]
        out[n] = (m * (w_o @ found + b_o[:, None])).reshape(out[n].shape)
    return out


@pytest.mark.parametrize(("height", "width"), [(12, 8), (6, 10), (3, 2)])
@pytest.mark.parametrize(("kind", "formula"), [("window", windowed), ("channel", channelwise)])
def test_cross_attention_is_the_formula(kind, formula, height, width):
    block = CrossAttention(CHANNELS, HEADS, kind, SIDE)
    if block.channels is not None:
        torch.nn.init.uniform_(block.channels.temperature, 0.5, 3.0)
    x = features(2, height, width)
    found = block(x, target(x)).detach().numpy()
    np.testing.assert_allclose(found, formula(block, x, target(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_whole_block_is_the_formula(bidirectional):
    block = randomised(MGCA(CHANNELS, HEADS, window=SIDE, bidirectional=bidirectional))
    x, state = features(), state_of(block)
    found, logits = block(x)
    hidden = gelu(convolved(x.double(), part(state, "head.0")))
    mask = torch.sigmoid(convolved(hidden, part(state, "head.2")))
    torch.testing.assert_close(torch.sigmoid(logits.double()), mask, rtol=1e-4, atol=1e-5)
    normed = normalised(x.double(), part(state, "norm"))
    y = x.double() + torch.from_numpy(windowed(block.rain, normed, mask))
    if bidirectional:
        y = y + torch.from_numpy(windowed(block.background, normed, 1 - mask))
    expected = y + gated_ffn(normalised(y, part(state, "ffn_norm")), part(state, "ffn"))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_certain_rain_is_not_a_source():
    """A pixel whose mask is 1 has no effect on other pixels."""
    block = CrossAttention(CHANNELS, HEADS, "window", SIDE)
    x = features(1, 4, 4)
    mask = torch.full((1, 1, 4, 4), 0.5)
    mask[..., 1, 1] = 1.0
    other = x.clone()
    other[..., 1, 1] += 10.0
    change = (block(x, mask) - block(other, mask)).abs().amax(1)[0]
    assert change[1, 1] > 1e-3  # its own query changes
    change[1, 1] = 0.0
    assert change.max() < 1e-6


def test_background_does_not_change():
    block = CrossAttention(CHANNELS, HEADS, "window", SIDE)
    x = features()
    mask = target(x).round()
    changed = block(x, mask).abs().amax(1, keepdim=True)
    assert changed[mask == 0].max() == 0
    assert changed[mask == 1].min() > 0


def test_a_window_of_rain_only_is_finite():
    block = CrossAttention(CHANNELS, HEADS, "window", SIDE)
    x = features().requires_grad_()
    y = block(x, torch.ones_like(x[:, :1]))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
