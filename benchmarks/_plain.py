"""Plain formulations of the networks, with our weights: the reference for the fast ones.

Formula by formula, each on the whole image: all of a layer's hidden activations are in memory at
once, attention stores its matrices, upsampling by two is two calls of `F.interpolate`.
"""

import copy
from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.convnext import ConvNeXtBlock, UpDWBlock, upsample2
from derain.models.layers.gated_ffn import GatedFFN
from derain.models.layers.mgca import EPS, CrossAttention
from derain.models.networks.clip_rpn_expert import TransformerBlock
from derain.models.networks.rdmc import MixedUp


def plain(network: nn.Module) -> nn.Module:
    """A copy of the network, NCHW in memory, that computes the same output plainly."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if type(module) in PLAIN:
            module.forward = MethodType(PLAIN[type(module)], module)
    return network


def convnext_block(self: ConvNeXtBlock, x: Tensor) -> Tensor:
    weight, bias = self.depthwise.weight, self.depthwise.bias
    y = F.conv2d(x, weight, bias, padding=3, groups=len(weight)).permute(0, 2, 3, 1)
    y = self.gamma * self.project(F.gelu(self.expand(self.norm(y))))
    return x + self.drop_path(y.permute(0, 3, 1, 2))


def updw_block(self: UpDWBlock, x: Tensor) -> Tensor:
    x = upsample2(x)
    return self.pointwise(F.gelu(self.depthwise(x))) + self.shortcut(x)


def mixed_up(self: MixedUp, x: Tensor) -> Tensor:
    bilinear, bicubic = self.logits.softmax(0)
    smooth = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    sharp = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    return bilinear * smooth + bicubic * sharp


def gated_ffn(self: GatedFFN, x: Tensor, norm: nn.Module) -> Tensor:
    a, b = self.depthwise(self.expand(norm(x))).chunk(2, dim=1)
    return x + self.project(F.gelu(a) * b)


def transformer_block(self: TransformerBlock, x: Tensor) -> Tensor:
    q, k, v = self.depthwise(self.project(self.norm(x))).chunk(3, dim=1)
    x = x + self.out(_between_channels(q, k, v, self.attention.temperature))
    return self.ffn(x, self.ffn_norm)


def cross_attention(self: CrossAttention, x: Tensor, target: Tensor) -> Tensor:
    q, k, v = self.project(x).chunk(3, dim=1)
    if self.channels is not None:
        y = _between_channels(q * target, k, v, self.channels.temperature)
    else:
        source, heads, side = 1 - target, self.windows.heads, self.windows.window
        bias = torch.log(EPS + source)
        q, k, v = (_windows(t, heads, side) for t in (q * target, k * source, v * source))
        logits = q @ k.mT / q.shape[-1] ** 0.5 + _windows(bias, 1, side).mT
        y = _images(torch.softmax(logits, dim=-1) @ v, x.shape, side)
    return target * self.out(y)


def _between_channels(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    q, k, flat = (t.flatten(2).unflatten(1, (temperature.shape[0], -1)) for t in (q, k, v))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    return (torch.softmax(q @ k.mT * temperature, dim=-1) @ flat).reshape(v.shape)


def _windows(x: Tensor, heads: int, side: int) -> Tensor:
    """NCHW of whole windows -> (windows, heads, pixels, channels per head)."""
    b, c, h, w = x.shape
    x = x.reshape(b, heads, c // heads, h // side, side, w // side, side)
    return x.permute(0, 3, 5, 1, 4, 6, 2).reshape(-1, heads, side * side, c // heads)


def _images(y: Tensor, shape: torch.Size, side: int) -> Tensor:
    """The inverse of `_windows`: back to NCHW of `shape`."""
    b, c, h, w = shape
    y = y.reshape(b, h // side, w // side, y.shape[1], side, side, -1)
    return y.permute(0, 3, 6, 1, 4, 2, 5).reshape(b, c, h, w)


PLAIN: dict[type[nn.Module], Callable[..., Tensor]] = {
    ConvNeXtBlock: convnext_block,
    UpDWBlock: updw_block,
    MixedUp: mixed_up,
    GatedFFN: gated_ffn,
    TransformerBlock: transformer_block,
    CrossAttention: cross_attention,
}
