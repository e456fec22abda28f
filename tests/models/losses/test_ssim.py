"""SSIM for training, compared with scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from derain.models.losses.ssim import ssim


def test_it_equals_scikit_images():
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(2, 3, 20, 24, generator=generator)
    output = (clean + 0.2 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    values = [
        structural_similarity(
            a.double().numpy(),
            b.double().numpy(),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for a, b in zip(output, clean, strict=True)
    ]
    assert ssim(output, clean).item() == pytest.approx(np.mean(values), abs=1e-5)


def test_it_is_1_for_equal_images_and_its_gradient_points_there():
    clean = torch.rand(1, 3, 16, 16)
    assert ssim(clean, clean).item() == pytest.approx(1.0, abs=1e-6)
    output = (clean * 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(ssim(output, clean), output)
    assert ssim(output + 0.1 * gradient / gradient.norm(), clean) > ssim(output, clean)


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.rand(1, 3, 10, 16), torch.rand(1, 3, 10, 16))
