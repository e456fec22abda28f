"""Mask-guided cross-attention: rainy pixels take what they miss from clean ones."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.gated_ffn import gated_ffn
from derain.models.layers.rain_masks import MaskHead

MGCAKind = Literal["window", "channel", "none"]
Features = Float[Tensor, "batch channels height width"]
Mask = Float[Tensor, "batch 1 height width"]

EPS = 1e-4
"""The least share of a key that counts as clean: no logarithm of 0."""

PADDED = -1e4
"""The logit of a key outside the image: exp gives 0, and a row of them no NaN."""


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel, NCHW."""

    def forward(self, x: Features) -> Features:
        """NCHW -> NCHW."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GatedFFN(nn.Module):
    """x + conv1x1(GELU(a) b), [a, b] = depthwise3x3(conv1x1(norm(x))), see `gated_ffn`.

    a and b are `expansion` times as wide as x.
    """

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.expand = nn.Conv2d(channels, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Features, norm: nn.Module) -> Features:
        """NCHW -> NCHW."""
        return gated_ffn(x, norm, self.expand, self.depthwise, self.project)


class WindowAttention(nn.Module):
    """Softmax attention inside windows that do not overlap, with a bias for every key.

        softmax(Q K^T / sqrt(d) + bias) V        d = channels / heads

    Time and memory grow with the number of pixels: each sees the `window`^2 of its window. Where
    windows stick out, what is outside is no key.

    The bias goes in as one more channel of K beside a constant one of Q. Given as a mask that
    needs a gradient, it would keep PyTorch from its fused kernels, which store no table of
    attention: 1.7 times as slow on a CPU (64 pixels, d = 16, forward and backward).
    """

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window

    def forward(self, q: Features, k: Features, v: Features, bias: Mask) -> Features:
        """NCHW, four times; `bias` is added to the logits of its pixel as a key."""
        height, width = q.shape[-2:]
        depth = q.shape[1] // self.heads
        margins = (0, -width % self.window, 0, -height % self.window)
        if any(margins):
            q, k, v = (F.pad(t, margins) for t in (q, k, v))
            bias = F.pad(bias, margins, value=PADDED)
        one = bias.new_full((), depth**0.5).expand_as(bias)
        parts = ((q, one), (k, bias), (v, torch.zeros_like(bias)))
        q, k, v = (self._split(t, extra.to(t.dtype)) for t, extra in parts)
        y = F.scaled_dot_product_attention(q, k, v, scale=depth**-0.5)[..., :depth]
        rows, columns = (height + margins[3]) // self.window, (width + margins[1]) // self.window
        return self._join(y, rows, columns)[..., :height, :width]

    def _split(self, x: Features, extra: Mask) -> Float[Tensor, "windows heads pixels depth"]:
        """The windows of x by heads, each with `extra` as its last channel."""
        size = self.window
        x = x.unflatten(1, (self.heads, -1))
        extra = extra.unsqueeze(1).expand(-1, self.heads, -1, -1, -1)
        x = torch.cat((x, extra), dim=2).unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
        # batch, heads, depth, rows, size, columns, size
        return x.permute(0, 3, 5, 1, 4, 6, 2).flatten(4, 5).flatten(0, 2)

    def _join(self, y: Tensor, rows: int, columns: int) -> Features:
        y = y.unflatten(2, (self.window, self.window)).unflatten(0, (-1, rows, columns))
        # batch, rows, columns, heads, size, size, depth
        return y.permute(0, 3, 6, 1, 4, 2, 5).flatten(5, 6).flatten(3, 4).flatten(1, 2)


class ChannelAttention(nn.Module):
    """Attention between channels, projected: W softmax(t Q K^T) V + b, Q and K of length 1.

    Lengths are over the pixels, t is learnt, one number a head. Linear in the number of pixels.

    Whatever is as large as an image is touched as seldom as possible: the lengths divide the
    small Q K^T and not Q and K, and W (softmax) is one matrix an image, which V meets once.

    Source: Zamir et al., Restormer, CVPR 2022, section 3.1.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, q: Features, k: Features, v: Features, project: nn.Conv2d) -> Features:
        """NCHW, three times, and the 1x1 convolution that is W and b -> NCHW."""
        q, k, v = (t.permute(0, 2, 3, 1) for t in (q, k, v))
        share = self._share(q.flatten(1, 2), k.flatten(1, 2))
        heads, depth = share.shape[1:3]
        weight = project.weight.view(-1, heads, depth)
        merged = torch.einsum("ohi,bhij->bhjo", weight.to(share.dtype), share).flatten(1, 2)
        assert project.bias is not None
        y = torch.baddbmm(project.bias, v.flatten(1, 2), merged.to(v.dtype))
        return y.unflatten(1, v.shape[1:3]).permute(0, 3, 1, 2)

    def _share(
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
    # a third of the time that torch.linalg.vector_norm takes over any axis but the last
    return x.float().square().sum(1).clamp_min(1e-24).sqrt()


class CrossAttention(nn.Module):
    """target W_o Attention, the pixels of `target` as queries, those of 1 - target as sources.

        window   Q = W_q (x T), K = W_k (x (1 - T)), V = W_v (x (1 - T)), bias = log(eps + 1 - T)
        channel  Q = W_q (x T), K = W_k x, V = W_v x

    T is soft, in (0, 1). The 1x1 convolutions W have no bias, so they commute with the mask and
    one projection of x serves all three. The bias keeps a pixel of the target from being a source
    where the mask is sure; where all of a window is target, it is the same for all keys and drops
    out. With attention between channels, masking the keys too would leave T (1 - T), about 0.
    """

    def __init__(self, channels: int, heads: int, kind: MGCAKind, window: int) -> None:
        super().__init__()
        self.kind = kind
        self.project = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.windows = WindowAttention(heads, window) if kind == "window" else None
        self.channels = ChannelAttention(heads) if kind == "channel" else None
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Features, target: Mask) -> Features:
        """Normalised features and the mask of the pixels that are to change, NCHW -> NCHW."""
        q, k, v = self.project(x).chunk(3, dim=1)
        gate = target.to(q.dtype)
        if self.channels is not None:
            return gate * self.channels(q * gate, k, v, self.out)
        assert self.windows is not None
        source = (1 - target).to(q.dtype)
        bias = torch.log(EPS + 1 - target)
        return gate * self.out(self.windows(q * gate, k * source, v * source, bias))


class MGCA(nn.Module):
    """Mask-guided cross-attention at one scale, with the mask that it predicts.

        M = sigmoid(head(X))
        Y = X + CrossAttention(LN(X), M)            rain asks, background answers
          (   + CrossAttention'(LN(X), 1 - M)       and the reverse, with bidirectional)
        Z = Y + FFN(LN(Y))

    Stated in the paper: rain masks at several scales, and cross-attention between rainy regions
    and clean background. All else is not stated in the paper; the nearest public relative is
    Regformer (arXiv 2402.16033), which masks attention between channels.

    Source: Guan & Yoshie, CLIP-RPN, arXiv 2506.01366.

    Raises ValueError for a kind other than "window" and "channel" or unfitting heads.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        kind: MGCAKind = "window",
        window: int = 8,
        expansion: float = 2.66,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if kind not in ("window", "channel") or channels % heads:
            raise ValueError(
                "mgca is window or channel, and heads divide channels; "
                f"got {kind!r}, {heads} heads, {channels} channels"
            )
        self.head = MaskHead(channels)
        self.norm = ChannelNorm(channels)
        self.rain = CrossAttention(channels, heads, kind, window)
        self.background = CrossAttention(channels, heads, kind, window) if bidirectional else None
        self.ffn_norm = ChannelNorm(channels)
        self.ffn = GatedFFN(channels, expansion)

    def forward(self, x: Features) -> tuple[Features, Mask]:
        """NCHW features -> features of the same shape and the logits of rain."""
        logits = self.head(x)
        mask = torch.sigmoid(logits.float())
        normed = self.norm(x)
        y = x + self.rain(normed, mask)
        if self.background is not None:
            y = y + self.background(normed, 1 - mask)
        return self.ffn(y, self.ffn_norm), logits
