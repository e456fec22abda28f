"""LayerNorm over the channels of each pixel."""

from torch import nn

from derain.models.shapes import FeatureMap


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: ChannelNorm(channels, eps=1e-5), NCHW."""

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW, as a permuted view: in channels_last memory format nothing is copied."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
