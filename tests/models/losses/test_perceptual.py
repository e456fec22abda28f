"""The perceptual loss, compared with numpy."""

import numpy as np
import pytest
import torch

from derain.models.losses.perceptual import perceptual_loss


def test_it_is_the_mean_over_maps_of_the_mean_difference():
    output, clean = ([torch.rand(2, 4, 6, 6), 5 * torch.rand(2, 8, 3, 3)] for _ in range(2))
    distances = [np.abs((a - b).numpy()).mean() for a, b in zip(output, clean, strict=True)]
    assert perceptual_loss(output, clean).item() == pytest.approx(np.mean(distances), rel=1e-5)


def test_it_is_float32_for_half_precision_maps():
    maps = [torch.full((1, 1, 2, 2), 1.0).bfloat16()], [torch.full((1, 1, 2, 2), 1.5).bfloat16()]
    assert perceptual_loss(*maps).dtype == torch.float32


def test_a_different_number_of_maps_is_refused():
    with pytest.raises(ValueError, match="zip"):
        perceptual_loss([torch.rand(1, 1, 2, 2)], [])
