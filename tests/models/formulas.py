"""Layers as in the papers, in float64, from the weights in a state dict.

They share no code with derain.models and are slow: all feature maps are in memory at once.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = Mapping[str, Tensor]


def randomised(module: nn.Module) -> nn.Module:
    """Randomise weights and statistics in place: no scale stays 1, no shift 0."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.3)
    return module


def state_of(module: nn.Module) -> State:
    """The state dict of a module in float64."""
    return {name: tensor.detach().double() for name, tensor in module.state_dict().items()}


def part(state: State, name: str) -> State:
    """The state dict of a sub-module."""
    return {
        key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")
    }


def convolved(x: Tensor, state: State, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolution with zero padding; grouped if the shape of the weights says so."""
    weight = state["weight"]
    padding = dilation * (weight.shape[-1] // 2)
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, state.get("bias"), stride, padding, dilation, groups)


def normalised(x: Tensor, state: State, eps: float = 1e-5) -> Tensor:
    """LayerNorm over the channels of each pixel, NCHW."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    scale, shift = (state[name][:, None, None] for name in ("weight", "bias"))
    return scale * (x - mean) / torch.sqrt(variance + eps) + shift


def gelu(x: Tensor) -> Tensor:
    """x P(N(0, 1) < x)."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def gated_ffn(x: Tensor, state: State) -> Tensor:
    """Restormer, section 3.2: W_p (GELU(W_d1 W_p1 x) * W_d2 W_p2 x)."""
    hidden = convolved(convolved(x, part(state, "expand")), part(state, "depthwise"))
    a, b = hidden.chunk(2, dim=1)
    return convolved(gelu(a) * b, part(state, "project"))


def transposed_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Restormer, section 3.1, per head: softmax(t Q K^T) V, rows of Q and K of length 1."""
    outputs = []
    depth = q.shape[1] // len(temperature)
    for t_head, *parts in zip(
        temperature.flatten(), *(x.split(depth, 1) for x in (q, k, v)), strict=True
    ):
        query, key, value = (t.flatten(2) for t in parts)
        query, key = (t / t.square().sum(-1, keepdim=True).sqrt() for t in (query, key))
        outputs.append(torch.softmax(t_head * query @ key.mT, dim=-1) @ value)
    return torch.cat(outputs, dim=1).reshape(v.shape)


def transformer_block(x: Tensor, state: State) -> Tensor:
    """Restormer: y = x + W_o Attention(Q, K, V), Q, K, V = W_d W_p LN(x); then y + FFN(LN(y))."""
    y = convolved(normalised(x, part(state, "norm")), part(state, "project"))
    q, k, v = convolved(y, part(state, "depthwise")).chunk(3, dim=1)
    y = transposed_attention(q, k, v, state["attention.temperature"])
    y = x + convolved(y, part(state, "out"))
    return y + gated_ffn(normalised(y, part(state, "ffn_norm")), part(state, "ffn"))


def naf_block(x: Tensor, state: State, eps: float = 1e-5) -> Tensor:
    """NAFNet's block, figure 3c: a gate is the product of the two halves of the channels."""
    y = convolved(normalised(x, part(state, "norm"), eps), part(state, "expand"))
    a, b = convolved(y, part(state, "depthwise")).chunk(2, dim=1)
    channel = convolved((a * b).mean((2, 3), keepdim=True), part(state, "attend"))
    y = x + state["beta"] * convolved(channel * a * b, part(state, "project"))
    hidden = convolved(normalised(y, part(state, "ffn_norm"), eps), part(state, "ffn_expand"))
    a, b = hidden.chunk(2, dim=1)
    return y + state["gamma"] * convolved(a * b, part(state, "ffn_project"))
