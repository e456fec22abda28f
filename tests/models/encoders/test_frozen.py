"""What all frozen encoders have in common."""

import torch
from torch import nn

from derain.models.encoders.frozen import FrozenEncoder


class Halves(FrozenEncoder):
    """Four maps of a BatchNorm that is not at rest."""

    mean_std = ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))

    def __init__(self, drifts):
        super().__init__((3, 3, 3, 3), (1, 2, 4, 8), drifts)
        self.norm = nn.BatchNorm2d(3)

    def features(self, x):
        y = self.norm(self.normalise(x))
        return tuple(y[..., ::step, ::step] for step in self.strides)


def test_images_are_normalised_channel_by_channel():
    x = torch.full((1, 3, 2, 2), 1.0)
    assert Halves(False).normalise(x)[0, :, 0, 0].tolist() == [2.0, 1.0, 0.5]


def test_only_one_that_drifts_follows_train():
    for drifts in (False, True):
        encoder = Halves(drifts).train()
        assert encoder.norm.training is drifts
        before = encoder.norm.running_mean.clone()
        encoder(torch.rand(2, 3, 8, 8))
        assert torch.equal(encoder.norm.running_mean, before) is not drifts


def test_forward_has_no_graph_and_features_have_one():
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert not Halves(False)(x)[3].requires_grad
    assert Halves(False).features(x)[3].requires_grad


def test_what_images_are_normalised_with_is_no_state():
    assert not {"mean", "std"} & Halves(False).state_dict().keys()
