"""Small networks whose exported files are compared with the network itself."""

from typing import Any

import torch
from torch import nn

from derain.models import build, trained_parameters

NETWORKS: dict[str, dict[str, Any]] = {
    "fclip_unet": {
        "encoder_weights": "random",
        "encoder_layers": (1, 1, 1),
        "encoder_width": 4,
        "decoder_widths": (8, 8, 8, 8, 8),
        "decoder_depths": (1, 1, 1, 1, 1),
        "ldfps_sigma": None,
    },
    "clip_rpn": {
        "routing": "single",
        "widths": (8, 12),
        "depths": (1, 1),
        "heads": (1, 2),
        "mgca": ("window",),
    },
    "rdmc": {"widths": (4, 8), "dilations": (1, 2), "recursions": 2},
    "prenet": {"width": 8, "recursions": 2},
    "nafnet": {"width": 8, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)},
}
"""Options by name; tests/soak/soak_exports.py adds the others, whose ONNX export is slow."""
TOLERANCE = 1e-5
"""Largest difference of images in [0, 1]; half a level of 8 bits is 2e-3."""


def network(name: str, **options: Any) -> nn.Module:
    """A small network with random weights, the same at every call; `options` replace NETWORKS'."""
    torch.manual_seed(0)
    built = build(name, **(options or NETWORKS[name]))
    for parameter in trained_parameters(built).values():  # some blocks start as the identity
        nn.init.normal_(parameter, std=0.1)
    return built.eval()
