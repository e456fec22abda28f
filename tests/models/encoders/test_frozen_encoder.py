"""The base class of the encoders: normalisation, evaluation mode, gradients."""

import torch
from torch import nn

from derain.models.encoders.frozen_encoder import FrozenEncoder


class Halves(FrozenEncoder):
    """Four maps of a BatchNorm."""

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


def test_only_a_drifting_encoder_obeys_train():
    for drifts in (False, True):
        encoder = Halves(drifts).train()
        assert encoder.norm.training is drifts
        before = encoder.norm.running_mean.clone()
        encoder(torch.rand(2, 3, 8, 8))
        assert torch.equal(encoder.norm.running_mean, before) is not drifts


def test_features_are_differentiable_and_forward_is_not():
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert not Halves(False)(x)[3].requires_grad
    assert Halves(False).features(x)[3].requires_grad


def test_mean_and_standard_deviation_are_not_in_the_state_dict():
    assert not {"mean", "std"} & Halves(False).state_dict().keys()
