"""Check the shapes in the signatures of derain.models while these tests run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("derain.models", "beartype.beartype")

TINY: dict[str, Any] = {
    "encoder_weights": "random",
    "encoder_layers": (1, 1, 1),
    "encoder_width": 8,
    "decoder_widths": (16, 12, 8, 8, 8),
    "decoder_depths": (1, 1, 1, 1, 1),
    "layer_scale": 1.0,
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> Callable[..., torch.nn.Module]:
    """Builds a small FCLIP-UNet with a random encoder; options override the defaults."""
    import derain.models

    return lambda **options: derain.models.build("fclip_unet", **{**TINY, **options})
