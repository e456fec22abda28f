"""Shapes that signatures of several networks and losses name."""

from jaxtyping import Float
from torch import Tensor

ImageBatch = Float[Tensor, "batch 3 height width"]
"""NCHW, RGB."""
