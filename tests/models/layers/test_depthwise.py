"""A wide depthwise convolution has the output and gradients of nn.Conv2d."""

import pytest
import torch
from torch import nn

from derain.models.layers.depthwise import DepthwiseConv2d


@pytest.mark.parametrize("size", [(9, 12), (1, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
def test_output_and_gradients_are_those_of_a_convolution(kernel, size):
    torch.manual_seed(0)
    ours = DepthwiseConv2d(4, kernel)
    plain = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=4)
    plain.load_state_dict(ours.state_dict())
    found = []
    for layer in (ours, plain):
        x = torch.rand(2, 4, *size, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = layer(x.to(memory_format=torch.channels_last))
        (y * torch.arange(y.numel()).reshape(y.shape).sin()).sum().backward()
        found.append((y, x.grad, layer.weight.grad, layer.bias.grad))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = DepthwiseConv2d(2, 7).double()
    x = torch.rand(1, 2, 8, 5, dtype=torch.float64, requires_grad=True)

    def called(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(called, (x, layer.weight, layer.bias))


def test_the_weight_gradient_is_the_same_without_an_image_gradient():
    torch.manual_seed(0)
    layer = DepthwiseConv2d(2, 7)
    x = torch.rand(1, 2, 8, 8)
    found = []
    for image in (x, x.clone().requires_grad_()):
        layer.zero_grad()
        layer(image).square().sum().backward()
        found.append(layer.weight.grad)
    assert torch.equal(*found)


def test_autocast_chooses_the_dtype():
    layer = DepthwiseConv2d(2, 7)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.rand(1, 2, 8, 8))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="keep the image size, got 4"):
        DepthwiseConv2d(2, 4)
