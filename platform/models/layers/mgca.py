"""Mask-guided cross-attention (MGCA): rainy pixels attend to clean pixels."""

from typing import Literal

import torch
from torch import nn

from derain.models.layers.attention import ChannelAttention, WindowAttention
from derain.models.layers.channel_norm import ChannelNorm
from derain.models.layers.gated_ffn import GatedFFN
from derain.models.layers.rain_masks import MaskHead, RainMask
from derain.models.shapes import FeatureMap

MGCAKind = Literal["window", "channel", "none"]

EPS = 1e-4
"""Added to 1 - T in the key bias, so that the logarithm of 0 is never taken."""


class CrossAttention(nn.Module):
    """T * (W_o Attention): target pixels are the queries, the other pixels the sources.

        window   Q = W_q (x T), K = W_k (x (1 - T)), V = W_v (x (1 - T)), bias = log(eps + 1 - T)
        channel  Q = W_q (x T), K = W_k x, V = W_v x

    T is the soft target mask, in (0, 1). The 1x1 convolutions W_q, W_k and W_v have no bias, so
    they commute with the mask and one projection of x serves all three. The bias excludes a target
    pixel as a source where the mask is certain; in a window of target pixels only, it is the same
    for all keys and cancels. In attention across channels, masking the keys too would leave
    T (1 - T), which is about 0.

    Not stated in the paper (CLIP-RPN, arXiv 2506.01366): these formulas.
    """

    def __init__(self, channels: int, heads: int, kind: MGCAKind, window: int) -> None:
        super().__init__()
        self.kind = kind
        self.project = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.windows = WindowAttention(heads, window) if kind == "window" else None
        self.channels = ChannelAttention(heads) if kind == "channel" else None
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: FeatureMap, target: RainMask) -> FeatureMap:
        """Normalised features and T, the mask of the pixels to change, NCHW -> NCHW."""
        q, k, v = self.project(x).chunk(3, dim=1)
        gate = target.to(q.dtype)
        if self.channels is not None:
            return gate * self.channels(q * gate, k, v, self.out)
        assert self.windows is not None
        source = (1 - target).to(q.dtype)
        bias = torch.log(EPS + 1 - target)
        return gate * self.out(self.windows(q * gate, k * source, v * source, bias))


class MGCA(nn.Module):
    """Mask-guided cross-attention at one scale, with the rain mask that it predicts.

        M = sigmoid(head(X))
        Y = X + CrossAttention(LN(X), M)            rain attends to background
          (   + CrossAttention'(LN(X), 1 - M)       and the reverse, with bidirectional=True)
        Z = Y + FFN(LN(Y))

    Stated in the paper: rain masks at several scales, and cross-attention between rainy regions
    and clean background. Not stated in the paper: everything else. The nearest published relative
    is Regformer (arXiv 2402.16033), which masks attention across channels.

    Source: Guan & Yoshie, CLIP-RPN, arXiv 2506.01366.

    Raises ValueError for a kind other than "window" and "channel", or if `heads` does not divide
    `channels`.
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
        """
        window: pixels per side of a window.
        expansion: hidden channels of the FFN, as a multiple of `channels`.
        """
        super().__init__()
        if kind not in ("window", "channel") or channels % heads:
            raise ValueError(
                "mgca must be window or channel, and channels a multiple of heads; "
                f"got {kind!r}, {channels} channels, {heads} heads"
            )
        self.head = MaskHead(channels)
        self.norm = ChannelNorm(channels)
        self.rain = CrossAttention(channels, heads, kind, window)
        self.background = CrossAttention(channels, heads, kind, window) if bidirectional else None
        self.ffn_norm = ChannelNorm(channels)
        self.ffn = GatedFFN(channels, expansion)

    def forward(self, x: FeatureMap) -> tuple[FeatureMap, RainMask]:
        """NCHW features -> features of the same shape, and the logits of M."""
        logits = self.head(x)
        mask = torch.sigmoid(logits.float())
        normed = self.norm(x)
        y = x + self.rain(normed, mask)
        if self.background is not None:
            y = y + self.background(normed, 1 - mask)
        return self.ffn(y, self.ffn_norm), logits
