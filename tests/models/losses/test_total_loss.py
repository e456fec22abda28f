"""The total loss and how it is built: its features, its gradients, invalid options."""

import pytest
import torch
from torch import nn

import derain.models as models
from derain.models.losses.features import VGGFeatures
from derain.models.losses.pixel import PIXEL_LOSSES
from derain.models.losses.total_loss import build_loss


def images(count=2, size=32):
    generator = torch.Generator().manual_seed(6)
    return torch.rand(count, 2, 3, size, size, generator=generator).unbind()


def test_lambda_zero_needs_no_weights(tmp_path):
    missing = str(tmp_path / "missing.pt")
    loss = build_loss(nn.Identity(), perceptual="vgg19", vgg_weights=missing)
    assert list(loss.parameters()) == []


def test_one_vgg_computes_the_features_of_both_terms():
    loss = build_loss(
        nn.Identity(),
        pixel="mse_ssim",
        lambda_p=0.1,
        perceptual="vgg16",
        lambda_c=0.1,
        contrastive="vgg16",
        contrastive_weights=(0.25, 0.5, 1.0),
        vgg_weights="random",
    )
    assert isinstance(loss.features.features, VGGFeatures)
    assert len(loss.features.features.taps) == 4 + 3
    total, terms = loss(*images(), rain=images(3)[2])
    assert terms.keys() == {"mse_ssim", "perceptual", "contrastive"}
    assert torch.isfinite(total)


def test_terms_on_the_encoder_train_the_decoder_and_leave_the_encoder(tiny):
    network = tiny().train()
    options = {"perceptual": "encoder", "contrastive": "encoder", "contrastive_weights": (0.5, 1.0)}
    loss = build_loss(network, lambda_p=1.0, lambda_c=0.1, **options)
    before = models.fingerprint(network.encoder)
    rainy, clean = images()
    _, terms = loss(network(rainy), clean, rain=rainy)
    (terms["perceptual"] + terms["contrastive"]).backward()
    assert all(p.grad is not None for p in models.trained_parameters(network).values())
    assert all(p.grad is None for p in network.encoder.parameters())
    assert models.fingerprint(network.encoder) == before
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pixel": "l3"}, "pixel"),
        ({"lambda_p": -1.0}, "lambda_p"),
        ({"perceptual": "x"}, "perceptual"),
        ({"lambda_p": 1.0, "perceptual": "encoder"}, "Identity has none"),
        ({"vgg_weights": "vgg.pt"}, "VGG weights"),
        (
            {"lambda_p": 1.0, "perceptual": "vgg16", "lambda_c": 1.0, "contrastive": "vgg19"},
            "same network",
        ),
        ({"lambda_c": 1.0, "contrastive": "encoder"}, "one number per layer"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        build_loss(nn.Identity(), **options)


@pytest.mark.parametrize("pixel", PIXEL_LOSSES)
@pytest.mark.parametrize("residual", [1e-1, 1e-2, 1e-3])
def test_a_loss_is_computed_in_float32_under_autocast(pixel, residual):
    """At small residuals bfloat16 would round the differences away."""
    clean, noise = images(size=24)
    loss = build_loss(nn.Identity(), pixel=pixel)
    results = []
    for enabled in (False, True):
        output = (clean + residual * noise).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            total, _ = loss(output, clean)
        (gradient,) = torch.autograd.grad(total, output)
        results.append((total, gradient))
    (plain, plain_gradient), (mixed, mixed_gradient) = results
    assert torch.equal(plain, mixed)
    assert torch.equal(plain_gradient, mixed_gradient)


def test_terms_of_features_are_computed_in_float32_under_autocast():
    clean, noise = images(size=24)
    torch.manual_seed(0)
    loss = build_loss(
        nn.Identity(),
        lambda_p=0.1,
        perceptual="vgg16",
        lambda_c=0.1,
        contrastive="vgg16",
        vgg_weights="random",
    )
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            results.append(loss(clean + 1e-3 * noise, clean, rain=noise)[1])
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
