"""The perceptual and contrastive terms: their features, gradients, and the total with them."""

import numpy as np
import pytest
import torch
from torch import nn

from derain.models.losses.contrastive import ContrastiveLoss
from derain.models.losses.feature_terms import FeatureTerms
from derain.models.losses.total_loss import TotalLoss


class Counting(nn.Module):
    """Two feature maps, and a record of the batch sizes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3).requires_grad_(False)
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        return [self.layer(x), 10 * self.layer(x).relu()]


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


def images(count=2, size=32):
    generator = torch.Generator().manual_seed(6)
    return torch.rand(count, 2, 3, size, size, generator=generator).unbind()


def test_the_total_is_weighted_and_the_terms_are_not():
    output, clean, rain = images(3)
    features = Counting()
    total, terms = TotalLoss("l1", None, both_terms(features))(output, clean, rain=rain)
    maps = [features(x) for x in (output, clean, rain)]
    distances = np.abs((maps[0][1] - maps[1][1]).numpy())
    assert terms["perceptual"].item() == pytest.approx(distances.mean(), rel=1e-4)
    contrast = ContrastiveLoss((0.5, 1.0))(maps[0], maps[1], [maps[2]])
    assert terms["contrastive"].item() == pytest.approx(contrast.item(), rel=1e-4)
    weighted = terms["l1"] + 0.5 * terms["perceptual"] + 0.2 * terms["contrastive"]
    assert total.item() == pytest.approx(weighted.item(), rel=1e-5)


def test_the_features_of_an_image_are_computed_once_for_both_terms():
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
def test_a_term_without_weight_is_left_out(lambdas, named):
    output, clean, rain = images(3)
    terms = both_terms(Counting(), *lambdas)(output, clean, rain)
    assert len(terms) == 1
    assert next(iter(terms)).startswith(named)


def test_the_contrastive_term_needs_the_rainy_image():
    with pytest.raises(ValueError, match="needs the rainy image"):
        both_terms(Counting())(*images(), None)
