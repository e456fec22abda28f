"""Small versions of PReNet, MPRNet, Restormer and NAFNet."""

import torch

import derain.models as models

OPTIONS = {
    "prenet": {"width": 8, "recursions": 2},
    "mprnet": {"width": 4, "unet_growth": 2, "full_growth": 2, "blocks": 1, "reduction": 1},
    "restormer": {
        "width": 4,
        "blocks": (1, 1, 1, 1),
        "refinement_blocks": 1,
        "heads": (1, 1, 2, 2),
    },
    "nafnet": {"width": 4, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)},
}


def build_small(name, **options):
    return models.build(name, **{**OPTIONS[name], **options})


def perturbed(name):
    """A network in which every parameter has an effect; some of NAFNet's start at exactly 0."""
    network = build_small(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def batch(size=2, height=16, width=24):
    return torch.rand(size, 3, height, width, generator=torch.Generator().manual_seed(4))
