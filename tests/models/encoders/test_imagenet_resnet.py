"""The ImageNet encoder, compared with torchvision's ResNet."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from derain.models.encoders.imagenet_resnet import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageNetResNetEncoder,
)
from tests.models.encoders.stages import normalised, recorded


@pytest.fixture(scope="module")
def resnet():
    """torchvision's ResNet with BatchNorm statistics that are not trivial."""
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(3)
    net = ResNet(Bottleneck, [1, 2, 1, 1])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_feature_maps_are_torchvisions_stage_outputs(resnet, tmp_path, suffix):
    path = tmp_path / f"resnet50{suffix}"
    if suffix == ".safetensors":
        save_file(resnet.state_dict(), path)
    else:
        torch.save(resnet.state_dict(), path)
    ours = ImageNetResNetEncoder(str(path), layers=(1, 2, 1)).train()
    x = torch.rand(2, 3, 64, 48)
    names = ("relu", "layer1", "layer2", "layer3")
    expected = recorded(resnet, names, normalised(x, IMAGENET_MEAN, IMAGENET_STD))
    for tap, stage in zip(ours(x), expected, strict=True):
        torch.testing.assert_close(tap, stage, rtol=1e-5, atol=1e-5)


def test_without_internet_the_error_says_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: no answer
    with pytest.raises(FileNotFoundError, match=r"resnet50.*encoder_weights=/path/to"):
        ImageNetResNetEncoder("IMAGENET1K_V1")


@pytest.mark.usefixtures("unchecked")
def test_a_wrong_number_of_layers_is_refused():
    with pytest.raises(ValueError, match="layers"):
        ImageNetResNetEncoder("random", layers=(1, 1))
