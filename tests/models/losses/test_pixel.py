"""The pixel losses, compared with numpy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from derain.models.losses.pixel import PIXEL_LOSSES, charbonnier_edge, laplacian
from derain.models.losses.ssim import ssim


def images(size=24):
    generator = torch.Generator().manual_seed(6)
    return torch.rand(2, 2, 3, size, size, generator=generator).unbind()


def smoothed(x):
    """Burt and Adelson's filter along rows and columns, edges replicated."""
    taps = np.array([0.05, 0.25, 0.4, 0.25, 0.05])
    return correlate1d(correlate1d(x, taps, axis=-1, mode="nearest"), taps, axis=-2, mode="nearest")


def expected_laplacian(x):
    low = smoothed(x)
    sparse = np.zeros_like(low)
    sparse[..., ::2, ::2] = 4 * low[..., ::2, ::2]
    return x - smoothed(sparse)


def test_they_match_numpy():
    output, clean = images()
    d = (output - clean).double().numpy()
    structure = 1 - ssim(output, clean).item()  # compared with scikit-image in test_ssim
    edges = expected_laplacian(output.double().numpy()) - expected_laplacian(clean.double().numpy())
    expected = {
        "l1": np.abs(d).mean(),
        "mse": (d**2).mean(),
        "charbonnier": np.sqrt(d**2 + 1e-6).mean(),
        "charbonnier_edge": np.sqrt(d**2 + 1e-6).mean() + 0.05 * np.sqrt(edges**2 + 1e-6).mean(),
        "ssim": structure,
        "mse_ssim": 0.1 * (d**2).mean() + structure,
    }
    assert expected.keys() == PIXEL_LOSSES.keys()
    for name, value in expected.items():
        assert PIXEL_LOSSES[name](output, clean).item() == pytest.approx(value, rel=1e-5)


def test_the_laplacian_of_a_flat_image_is_zero_inside():
    flat = laplacian(torch.full((1, 3, 16, 16), 0.7))
    assert flat[..., 4:-4, 4:-4].abs().max() < 1e-6


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_a_gradient_step_goes_to_the_clean_image(name):
    output, clean = images()
    output = output.requires_grad_()
    loss = PIXEL_LOSSES[name](output, clean)
    (gradient,) = torch.autograd.grad(loss, output)
    step = 1e-3 * gradient / gradient.abs().max()
    assert PIXEL_LOSSES[name](output - step, clean) < loss
    assert PIXEL_LOSSES[name](clean, clean) < 2e-3


def test_odd_image_sizes_are_accepted():
    assert torch.isfinite(charbonnier_edge(torch.rand(1, 3, 13, 11), torch.rand(1, 3, 13, 11)))
