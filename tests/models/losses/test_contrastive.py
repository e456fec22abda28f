"""The contrastive loss, compared with its formula in numpy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from derain.models.losses.contrastive import ContrastiveLoss

WEIGHTS = (0.25, 1.0)


class TwoMaps(nn.Module):
    """Two feature maps; the second has 1,000 times the scale of the first."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 5, 3, stride=2)
        self.requires_grad_(False)

    def forward(self, x):
        one = self.first(x).relu()
        return [one, 1000 * self.second(one)]


def images(count=4):
    generator = torch.Generator().manual_seed(6)
    return torch.rand(count, 2, 3, 16, 16, generator=generator).unbind()


def expected(maps, ratio, floor):
    """The formula with numpy; maps: of anchor, positive and each negative."""
    anchor, positive, *negatives = maps

    def distance(x, y, layer):
        return np.abs(x[layer].double().numpy() - y[layer].double().numpy()).mean()

    attract, repel = [], []
    for layer in range(2):
        attract.append(distance(anchor, positive, layer))
        away = np.mean([distance(anchor, n, layer) for n in negatives])
        apart = np.mean([distance(positive, n, layer) for n in negatives])
        repel.append(max(away, floor * apart) + 1e-7)
    if ratio == "of_sums":
        return np.dot(WEIGHTS, attract) / np.dot(WEIGHTS, repel)
    return np.dot(WEIGHTS, np.divide(attract, repel))


def compare(loss, anchor, positive, negatives):
    """The loss of images on the maps of `TwoMaps`, whose random weights depend on the seed."""
    features = TwoMaps()
    return loss(features(anchor), features(positive), [features(x) for x in negatives])


@pytest.mark.parametrize("ratio", ["per_layer", "of_sums"])
@pytest.mark.parametrize("negatives", [1, 2])
@pytest.mark.parametrize("floor", [0.0, 5.0])
def test_it_is_the_formula(ratio, negatives, floor):
    """floor=5 is above all distances here, floor=0 below."""
    features = TwoMaps()
    anchor, positive, *others = (features(x) for x in images())
    others = others[:negatives]
    found = ContrastiveLoss(WEIGHTS, ratio=ratio, floor=floor)(anchor, positive, others).item()
    assert found == pytest.approx(expected([anchor, positive, *others], ratio, floor), rel=1e-4)


def test_it_is_zero_at_the_positive():
    _, positive, negative, _ = images()
    assert compare(ContrastiveLoss(WEIGHTS), positive, positive, [negative]).item() == 0


def test_at_the_negative_the_floor_keeps_it_finite():
    """There d(a, p) = d(p, n), so every layer's ratio is 1 / floor."""
    _, positive, negative, _ = images()
    floored = compare(ContrastiveLoss(WEIGHTS, floor=0.1), negative, positive, [negative])
    assert floored.item() == pytest.approx(sum(WEIGHTS) / 0.1, 1e-3)
    published = compare(ContrastiveLoss(WEIGHTS, floor=0.0), negative, positive, [negative])
    assert 1e4 < published.item() < math.inf


def test_equal_images_give_zero():
    x = images()[0]
    assert compare(ContrastiveLoss(WEIGHTS), x, x, [x]).item() == 0


def test_a_gradient_step_goes_from_the_negative_to_the_positive():
    _, positive, negative, _ = images()
    anchor = ((positive + negative) / 2).requires_grad_()
    features, loss = TwoMaps(), ContrastiveLoss(WEIGHTS)

    def value(x):
        return loss(features(x), features(positive), [features(negative)])

    before = value(anchor)
    (gradient,) = torch.autograd.grad(before, anchor)
    assert value(anchor - 1e-3 * gradient / gradient.abs().max()) < before


def test_it_is_finite_under_bfloat16_autocast():
    anchor, positive, negative, _ = images()
    features, loss = TwoMaps(), ContrastiveLoss(WEIGHTS)
    maps = [features(x) for x in (anchor, positive, negative)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(*(features(x) for x in (anchor, positive)), [features(negative)])
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(loss(maps[0], maps[1], [maps[2]]).item(), rel=0.02)


def test_a_different_number_of_maps_than_weights_is_refused():
    anchor, positive, negative, _ = images()
    with pytest.raises(ValueError, match=r"5 weights.*2 maps"):
        compare(ContrastiveLoss(), anchor, positive, [negative])


def test_no_negatives_are_refused():
    anchor, positive, *_ = images()
    with pytest.raises(ValueError, match="at least one negative"):
        compare(ContrastiveLoss(WEIGHTS), anchor, positive, [])


@pytest.mark.parametrize(
    "options", [{"ratio": "sum"}, {"floor": -1.0}, {"weights": (1.0, 0.0)}, {"weights": ()}]
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ContrastiveLoss(**{"weights": WEIGHTS, **options})
