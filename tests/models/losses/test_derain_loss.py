"""The total and its terms: what is added up, from which features, and who gets a gradient."""

import numpy as np
import pytest
import torch
from torch import nn

import derain.models as models
from derain.models.losses.contrastive import ContrastiveLoss
from derain.models.losses.derain_loss import DerainLoss, FeatureTerms, build_loss
from derain.models.losses.features import VGGFeatures


class Counting(nn.Module):
    """Two maps, and how often they were asked for."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3).requires_grad_(False)
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        return [self.layer(x), 10 * self.layer(x).relu()]


def images(count=2, size=32):
    generator = torch.Generator().manual_seed(6)
    return torch.rand(count, 2, 3, size, size, generator=generator).unbind()


def both_terms(features, lambda_p=0.5, lambda_c=0.2):
    return FeatureTerms(
        features,
        ("a", "b"),
        lambda_p=lambda_p,
        perceptual=("b",),
        lambda_c=lambda_c,
        contrastive=("a", "b"),
        contrast=ContrastiveLoss((0.5, 1.0)),
    )


def test_the_total_weighs_and_the_terms_do_not():
    output, clean, rain = images(3)
    features = Counting()
    total, terms = DerainLoss("l1", None, both_terms(features))(output, clean, rain=rain)
    maps = [features(x) for x in (output, clean, rain)]
    distances = np.abs((maps[0][1] - maps[1][1]).numpy())
    assert terms["perceptual"].item() == pytest.approx(distances.mean(), rel=1e-4)
    contrast = ContrastiveLoss((0.5, 1.0))(maps[0], maps[1], [maps[2]])
    assert terms["contrastive"].item() == pytest.approx(contrast.item(), rel=1e-4)
    weighed = terms["l1"] + 0.5 * terms["perceptual"] + 0.2 * terms["contrastive"]
    assert total.item() == pytest.approx(weighed.item(), rel=1e-5)


def test_each_image_is_looked_at_once_for_both_terms():
    features = Counting()
    both_terms(features)(*images(3))
    assert features.batches == [2, 2, 2]


def test_only_the_output_gets_a_gradient():
    output, clean, rain = (x.requires_grad_() for x in images(3))
    features = Counting()
    sum(both_terms(features)(output, clean, rain).values()).backward()
    assert output.grad.abs().sum() > 0
    assert clean.grad is None
    assert rain.grad is None
    assert features.layer.weight.grad is None


@pytest.mark.parametrize(("lambdas", "named"), [((0.5, 0.0), "perceptual"), ((0.0, 0.2), "contr")])
def test_a_term_without_weight_is_not_there(lambdas, named):
    output, clean, rain = images(3)
    found = both_terms(Counting(), *lambdas)(output, clean, rain)
    assert len(found) == 1
    assert next(iter(found)).startswith(named)


def test_the_contrast_asks_for_the_rainy_image():
    with pytest.raises(ValueError, match="needs the rainy image"):
        both_terms(Counting())(*images(), None)


def test_lambda_zero_needs_no_weights(tmp_path):
    missing = str(tmp_path / "missing.pt")
    loss = build_loss(nn.Identity(), perceptual="vgg19", vgg_weights=missing)
    assert list(loss.parameters()) == []


def test_one_vgg_serves_both_terms():
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
        ({"vgg_weights": "vgg.pt"}, "takes weights"),
        (
            {"lambda_p": 1.0, "perceptual": "vgg16", "lambda_c": 1.0, "contrastive": "vgg19"},
            "One network",
        ),
        ({"lambda_c": 1.0, "contrastive": "encoder"}, "one number a layer"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unfitting_options_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        build_loss(nn.Identity(), **options)
