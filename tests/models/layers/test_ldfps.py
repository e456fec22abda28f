"""The noise of LDFPS, compared with formulas written independently in numpy."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from derain.models.layers.ldfps import LDFPS

SIGMAS = (0.01, 0.03, 0.06, 0.1)


def taps():
    generator = torch.Generator().manual_seed(7)
    shapes = [(3, 8, 12, 16), (3, 16, 6, 8), (3, 24, 4, 4), (3, 32, 2, 2)]
    return [torch.rand(shape, generator=generator) + 0.2 for shape in shapes]


def noise(*shapes, seed=11):
    torch.manual_seed(seed)
    return [torch.randn(shape).numpy() for shape in shapes]


def perturbed(kind, sigmas=SIGMAS, seed=11):
    module = LDFPS(sigmas, kind).train()
    torch.manual_seed(seed)
    return [y.numpy() for y in module(taps())]


def test_multiplicative_noise_matches_the_formula():
    draws = noise(*(f.shape for f in taps()))
    for y, f, sigma, n in zip(perturbed("multiplicative"), taps(), SIGMAS, draws, strict=True):
        np.testing.assert_allclose(y, f.numpy() * (1 + sigma * n), rtol=1e-5)


def test_multiplicative_noise_has_the_stated_strength():
    module = LDFPS((0.06,)).train()
    (y,) = module([torch.full((4, 8, 64, 64), 3.0)])
    assert y.mean().item() == pytest.approx(3.0, abs=0.002)
    assert y.std().item() == pytest.approx(0.18, rel=0.02)


def test_additive_noise_matches_the_formula():
    draws = noise(*(f.shape for f in taps()))
    for y, f, sigma, n in zip(perturbed("additive"), taps(), SIGMAS, draws, strict=True):
        std = f.numpy().std(axis=(1, 2, 3), keepdims=True)
        np.testing.assert_allclose(y, f.numpy() + sigma * std * n, rtol=1e-4)


def test_statistics_noise_matches_the_formula():
    draws = noise(*((2, *f.shape[:2], 1, 1) for f in taps()))
    for y, f, sigma, n in zip(perturbed("statistics"), taps(), SIGMAS, draws, strict=True):
        x = f.double().numpy()
        mu, s = x.mean((2, 3), keepdims=True), x.std((2, 3), keepdims=True)
        mu2 = mu + sigma * mu.std(0, keepdims=True) * n[0]
        s2 = s + sigma * s.std(0, keepdims=True) * n[1]
        np.testing.assert_allclose(y, s2 * (x - mu) / s + mu2, rtol=1e-3)
        np.testing.assert_allclose(y.mean((2, 3), keepdims=True), mu2, rtol=1e-4)


def test_statistics_noise_does_not_change_a_batch_of_one():
    module = LDFPS((0.1,), "statistics").train()
    x = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(module([x])[0], x)


@pytest.mark.parametrize("kind", ["multiplicative", "additive", "statistics"])
def test_trials_with_different_sigmas_draw_the_same_noise(kind):
    features = [f.numpy() for f in taps()]
    weak = perturbed(kind, (0.01, 0.01, 0.01, 0.01))
    mixed = perturbed(kind, (0.02, 0.0, 0.05, 0.03))
    for y, z, f, ratio in zip(weak, mixed, features, (2, 0, 5, 3), strict=True):
        np.testing.assert_allclose(z - f, ratio * (y - f), atol=5e-6)


def test_sigma_zero_still_draws_so_that_later_draws_are_the_same():
    perturbed("multiplicative", (0.0,) * 4)
    after_none = torch.rand(3)
    perturbed("multiplicative")
    assert torch.equal(torch.rand(3), after_none)


@pytest.mark.parametrize("kind", ["multiplicative", "additive", "statistics"])
def test_identity_in_evaluation_and_with_all_sigmas_zero(kind):
    for module in (LDFPS(SIGMAS, kind).eval(), LDFPS((0.0,) * 4, kind).train()):
        for y, f in zip(module(taps()), taps(), strict=True):
            assert torch.equal(y, f)


def test_evaluation_draws_nothing():
    state = torch.get_rng_state()
    LDFPS(SIGMAS).eval()(taps())
    assert torch.equal(torch.get_rng_state(), state)


def test_bfloat16_features_get_noise_of_the_stated_strength():
    features = torch.full((1, 8, 128, 128), 1.0, dtype=torch.bfloat16)
    (y,) = LDFPS((0.03,)).train()([features])
    assert y.dtype == torch.bfloat16
    assert y.float().std().item() == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize(("sigmas", "kind"), [((-0.1,), "additive"), ((0.1,), "gaussian")])
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(sigmas, kind):
    with pytest.raises(ValueError, match=r"sigmas|kind"):
        LDFPS(sigmas, kind)


def test_one_sigma_per_level_is_required():
    with pytest.raises(ValueError, match="zip"):
        LDFPS((0.1, 0.1)).train()(taps())


def test_gradient_passes_through_the_noise():
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    (y,) = LDFPS((0.1,), "statistics").train()([x])
    F.mse_loss(y, torch.zeros_like(y)).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
