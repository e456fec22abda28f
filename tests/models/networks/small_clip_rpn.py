"""Options of a small CLIP-RPN."""

from typing import Any

SMALL: dict[str, Any] = {
    "encoder_weights": "random",
    "encoder_dim": 16,
    "encoder_width": 32,
    "encoder_layers": 1,
    "encoder_text_width": 32,
    "encoder_text_layers": 1,
    "routing": "oracle",
    "widths": (8, 12, 16),
    "depths": (1, 1, 1),
    "heads": (1, 2, 2),
    "ffn_expansion": 1.0,
    "mgca": ("window", "window"),
    "mgca_window": 4,
}
