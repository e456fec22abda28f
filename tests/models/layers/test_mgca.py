"""Mask-guided cross-attention and mask supervision against their formulas in numpy."""

import math

import numpy as np
import pytest
import torch

from derain.models.layers.mgca import MGCA, CrossAttention, WindowAttention
from derain.models.layers.rain_masks import mask_loss, rain_mask
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
    """The formula, pixel by pixel; a window ends where the image ends."""
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


def test_sure_rain_is_no_source():
    """What lies under a sure mask reaches no other pixel."""
    block = CrossAttention(CHANNELS, HEADS, "window", SIDE)
    x = features(1, 4, 4)
    mask = torch.full((1, 1, 4, 4), 0.5)
    mask[..., 1, 1] = 1.0
    other = x.clone()
    other[..., 1, 1] += 10.0
    change = (block(x, mask) - block(other, mask)).abs().amax(1)[0]
    assert change[1, 1] > 1e-3  # it asks another question
    change[1, 1] = 0.0
    assert change.max() < 1e-6


def test_background_is_left_alone():
    block = CrossAttention(CHANNELS, HEADS, "window", SIDE)
    x = features()
    mask = target(x).round()
    changed = block(x, mask).abs().amax(1, keepdim=True)
    assert changed[mask == 0].max() == 0
    assert changed[mask == 1].min() > 0


def test_a_window_of_rain_alone_gives_numbers():
    block = CrossAttention(CHANNELS, HEADS, "window", SIDE)
    x = features().requires_grad_()
    y = block(x, torch.ones_like(x[:, :1]))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


def test_attention_memory_is_linear_in_the_image():
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


def test_the_rain_mask_is_any_channel_beyond_the_threshold():
    clean = torch.zeros(1, 3, 1, 4)
    rainy = clean.clone()
    rainy[0, 1, 0, 1], rainy[0, 2, 0, 2], rainy[0, 0, 0, 3] = 0.04, 0.02, -0.5
    assert rain_mask(rainy, clean, 0.03).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_the_mask_loss_is_the_formula():
    generator = torch.Generator().manual_seed(5)
    clean = torch.rand(3, 3, 8, 16, generator=generator)
    rain = (torch.rand(3, 1, 8, 16, generator=generator) > torch.tensor([0.95, 0.6, 2.0]).view(
        3, 1, 1, 1
    )) * 0.5  # fmt: skip
    logits = [torch.randn(3, 1, 8 // s, 16 // s, generator=generator) for s in (1, 2)]
    expected = 0.0
    for s, logit in zip((1, 2), logits, strict=True):
        terms = []
        for n in range(3):
            g = (rain[n, 0] > 0).numpy().reshape(8 // s, s, 16 // s, s).max((1, 3))
            w = min(10.0, max(1.0, (~g).sum() / max(1, g.sum())))
            m = 1 / (1 + np.exp(-logit[n, 0].double().numpy()))
            terms.append(-(w * g * np.log(m) + ~g * np.log(1 - m)).mean())
        expected += np.mean(terms)
    found = mask_loss(logits, clean + rain, clean, 0.03)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_mask_loss_of_a_batch_is_the_mean_of_its_images():
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    clean, logits = x * 0.96, [features(4, 8, 8)[:, :1]]
    whole = mask_loss(logits, x, clean, 0.03)
    parts = [
        mask_loss([logits[0][i : i + 1]], x[i : i + 1], clean[i : i + 1], 0.03) for i in range(4)
    ]
    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)
