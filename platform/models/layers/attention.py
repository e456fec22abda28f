"""Attention whose memory is linear in the number of pixels: within windows, or across channels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.shapes import FeatureMap

KeyBias = Float[Tensor, "batch 1 height width"]
"""A number per pixel, added to the attention logits of that pixel as a key."""

PADDING_LOGIT = -1e4
"""The logit of a key outside the image: exp gives 0, and a row of nothing else gives no NaN."""


class WindowAttention(nn.Module):
    """Softmax attention within non-overlapping windows, with a bias per key.

        softmax(Q K^T / sqrt(d) + bias) V        d = channels / heads

    Each pixel attends to the `window`^2 pixels of its window, so time and memory are linear in
    the number of pixels. Pixels of a window outside the image are excluded as keys.

    The bias is passed as one more channel of K, next to a constant channel of Q. As a mask that
    requires a gradient it would rule out PyTorch's fused kernels, which do not store the attention
    matrix: 1.7 times as slow on a CPU (64 pixels, d = 16, forward and backward).
    """

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window

    def forward(self, q: FeatureMap, k: FeatureMap, v: FeatureMap, bias: KeyBias) -> FeatureMap:
        """Q, K, V and the bias, all NCHW -> NCHW, the shape of V."""
        height, width = q.shape[-2:]
        depth = q.shape[1] // self.heads
        margins = (0, -width % self.window, 0, -height % self.window)
        if any(margins):
            q, k, v = (F.pad(t, margins) for t in (q, k, v))
            bias = F.pad(bias, margins, value=PADDING_LOGIT)
        one = bias.new_full((), depth**0.5).expand_as(bias)
        parts = ((q, one), (k, bias), (v, torch.zeros_like(bias)))
        q, k, v = (self._split(t, extra.to(t.dtype)) for t, extra in parts)
        y = F.scaled_dot_product_attention(q, k, v, scale=depth**-0.5)[..., :depth]
        rows, columns = (height + margins[3]) // self.window, (width + margins[1]) // self.window
        return self._join(y, rows, columns)[..., :height, :width]

    def _split(self, x: FeatureMap, extra: KeyBias) -> Float[Tensor, "windows heads pixels depth"]:
        """The windows of x, head by head, each with `extra` as its last channel."""
        size = self.window
        x = x.unflatten(1, (self.heads, -1))
        extra = extra.unsqueeze(1).expand(-1, self.heads, -1, -1, -1)
        x = torch.cat((x, extra), dim=2).unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
        # batch, heads, depth, rows, size, columns, size
        return x.permute(0, 3, 5, 1, 4, 6, 2).flatten(4, 5).flatten(0, 2)

    def _join(self, y: Tensor, rows: int, columns: int) -> FeatureMap:
        """Reassemble the windows of `_split`: rows x columns windows per image -> NCHW."""
        y = y.unflatten(2, (self.window, self.window)).unflatten(0, (-1, rows, columns))
        # batch, rows, columns, heads, size, size, depth
        return y.permute(0, 3, 6, 1, 4, 2, 5).flatten(5, 6).flatten(3, 4).flatten(1, 2)


class ChannelAttention(nn.Module):
    """Attention across channels with its output projection: W softmax(t Q K^T) V + b.

    Rows of Q and K (one per channel, over all pixels) are scaled to length 1. t is a learned
    temperature per head. Time and memory are linear in the number of pixels.

    Tensors of image size are read and written as rarely as possible: the small Q K^T is divided by
    the lengths instead of Q and K, and W and the softmax are merged into one matrix per image,
    which is applied to V once.

    Source: Zamir et al., Restormer, CVPR 2022, section 3.1.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(
        self, q: FeatureMap, k: FeatureMap, v: FeatureMap, project: nn.Conv2d
    ) -> FeatureMap:
        """Q, K, V, all NCHW, and the 1x1 convolution that holds W and b -> NCHW."""
        q, k, v = (t.permute(0, 2, 3, 1) for t in (q, k, v))
        attention = self._attention(q.flatten(1, 2), k.flatten(1, 2))
        heads, depth = attention.shape[1:3]
        weight = project.weight.view(-1, heads, depth)
        merged = torch.einsum("ohi,bhij->bhjo", weight.to(attention.dtype), attention).flatten(1, 2)
        assert project.bias is not None
        y = torch.baddbmm(project.bias, v.flatten(1, 2), merged.to(v.dtype))
        return y.unflatten(1, v.shape[1:3]).permute(0, 3, 1, 2)

    def _attention(
        self, q: Float[Tensor, "batch pixels channels"], k: Float[Tensor, "batch pixels channels"]
    ) -> Float[Tensor, "batch heads depth depth"]:
        """softmax(t Q K^T), head by head."""
        heads = self.temperature.shape[0]
        pairs = zip(q.chunk(heads, -1), k.chunk(heads, -1), strict=True)
        products = torch.stack([a.mT @ b for a, b in pairs], dim=1).float()
        q_length, k_length = (_lengths(t).unflatten(-1, (heads, -1)) for t in (q, k))
        return torch.softmax(
            self.temperature * products / (q_length[..., None] * k_length[..., None, :]), dim=-1
        )


def _lengths(x: Float[Tensor, "batch pixels channels"]) -> Float[Tensor, "batch channels"]:
    # a third of the time of torch.linalg.vector_norm, which is slow over any axis but the last
    return x.float().square().sum(1).clamp_min(1e-24).sqrt()
