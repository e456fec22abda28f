"""A batch through several experts: order, calls, gradients, and invalid routes."""

import pytest
import torch
from torch import nn

from derain.models.layers.routing import dispatch_to_experts, mix_experts

ROUTE = torch.tensor([2, 0, 2, 1])


class Expert(nn.Module):
    """An image and a map, and a record of the batch sizes."""

    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(3, 3, 1)
        self.map = nn.Conv2d(3, 1, 1)
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        return self.image(x), self.map(x)


@pytest.fixture
def experts():
    return nn.ModuleList(Expert() for _ in range(3))


def images(memory=torch.contiguous_format):
    return torch.rand(4, 3, 6, 5).contiguous(memory_format=memory)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("route", [[2, 0, 2, 1], [1, 1, 1, 1]])
def test_each_image_gets_the_output_of_its_expert(experts, memory, route):
    x = images(memory)
    outputs = dispatch_to_experts(experts, x, torch.tensor(route))
    assert [y.is_contiguous(memory_format=memory) for y in outputs] == [True, True]
    for i, k in enumerate(route):
        for together, alone in zip(outputs, experts[k](x[i : i + 1]), strict=True):
            torch.testing.assert_close(together[i], alone[0])


def test_each_expert_in_use_runs_once(experts):
    dispatch_to_experts(experts, images(), torch.tensor([2, 0, 2, 2]))
    assert [expert.batches for expert in experts] == [[1], [], [3]]


@pytest.mark.parametrize("route", [[0, 1, 2, 3], [0, -1, 0, 0]])
def test_an_invalid_route_is_refused(experts, route):
    with pytest.raises(ValueError, match=r"0\.\.2"):
        dispatch_to_experts(experts, images(), torch.tensor(route))


@pytest.mark.parametrize("route", [[1, 1, 1, 1], [1, 0, 1, 0]])
def test_an_expert_without_images_gets_a_gradient_of_zero(experts, route):
    """Data-parallel training then finds every parameter in every graph."""
    sum(y.sum() for y in dispatch_to_experts(experts, images(), torch.tensor(route))).backward()
    for number, expert in enumerate(experts):
        grads = [p.grad for p in expert.parameters()]
        assert all(g is not None for g in grads)
        assert any(bool(g.any()) for g in grads) == (number in route)


def test_a_mixture_weighs_every_expert(experts):
    x, weights = images(), torch.rand(4, 3)
    outputs = mix_experts(experts, x, weights)
    for index, y in enumerate(outputs):
        expected = sum(weights[:, k, None, None, None] * experts[k](x)[index] for k in range(3))
        torch.testing.assert_close(y, expected)


def test_a_mixture_of_one_hot_weights_is_the_route(experts):
    x = images()
    mixed = mix_experts(experts, x, torch.eye(3)[ROUTE])
    for a, b in zip(mixed, dispatch_to_experts(experts, x, ROUTE), strict=True):
        torch.testing.assert_close(a, b)
