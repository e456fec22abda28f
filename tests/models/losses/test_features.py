"""Feature maps, compared with torchvision's own layers; where their weights come from."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import derain.models as models
from derain.models.losses.features import CONVOLUTIONS, EncoderFeatures, VGGFeatures, relu_positions

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


def image(size=24):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(6))


@pytest.fixture(scope="module")
def vgg16():
    """torchvision's complete VGG-16 with random weights."""
    import torchvision

    torch.manual_seed(5)
    return torchvision.models.vgg16(weights=None, init_weights=False).features


@pytest.mark.parametrize("arch", CONVOLUTIONS)
def test_names_are_the_positions_of_torchvisions_relus(arch):
    import torchvision

    with torch.device("meta"):
        layers = torchvision.models.get_model(arch, weights=None).features
    relus = [at for at, layer in enumerate(layers) if isinstance(layer, torch.nn.ReLU)]
    assert list(relu_positions(CONVOLUTIONS[arch]).values()) == relus


def test_maps_are_torchvisions_from_a_part_of_its_file_in_half_precision(vgg16, tmp_path):
    """The file ends after conv4_3; relu1_1 must not be overwritten by later layers."""
    kept = {f"features.{k}": v.half() for k, v in vgg16[:22].state_dict().items()}
    save_file(kept, tmp_path / "vgg16.safetensors")
    layers = ("relu4_3", "relu1_1", *LAYERS[:3])
    found = VGGFeatures("vgg16", layers, str(tmp_path / "vgg16.safetensors"))(image())
    half = vgg16.half().float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image() - mean[:, None, None]) / std[:, None, None]
    for last, got in zip((23, 2, 4, 9, 16), found, strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(got, half[:last](x.clone()), rtol=1e-4, atol=1e-5)


def test_nothing_is_trained_and_the_image_gets_a_gradient():
    features = VGGFeatures("vgg16", LAYERS[:2], "random")
    x = image().requires_grad_()
    sum(found.mean() for found in features(x)).backward()
    assert x.grad.abs().sum() > 0
    assert models.trained_parameters(features) == {}


def test_random_weights_are_always_the_same():
    state = torch.get_rng_state()
    first = models.fingerprint(VGGFeatures("vgg19", LAYERS[:2], "random"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert models.fingerprint(VGGFeatures("vgg19", LAYERS[:2], "random")) == first


def test_the_fingerprint_depends_on_the_layers():
    one, other = (VGGFeatures("vgg16", names, "random") for names in (LAYERS[:2], LAYERS[1:2]))
    assert models.fingerprint(one) != models.fingerprint(other)


def test_weights_of_another_network_are_refused(vgg16, tmp_path):
    tensors = {f"features.{k}": v for k, v in vgg16.state_dict().items()}
    torch.save(tensors, tmp_path / "vgg16.pt")
    with pytest.raises(ValueError, match=r"vgg16\.pt"):
        VGGFeatures("vgg19", ("relu4_4",), str(tmp_path / "vgg16.pt"))


def test_without_internet_the_error_says_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: no answer
    with pytest.raises(FileNotFoundError, match=r"vgg19.*set loss.perceptual_weights to its path"):
        VGGFeatures("vgg19", LAYERS[:1])


@pytest.mark.parametrize(("arch", "layers"), [("vgg11", LAYERS), ("vgg16", ("relu3_4",))])
def test_unknown_names_are_refused(arch, layers):
    with pytest.raises(ValueError, match=r"arch|layers"):
        VGGFeatures(arch, layers, "random")


def test_encoder_features_are_its_taps_and_not_in_the_state_dict(tiny):
    network = tiny()
    x = image(32)
    features = EncoderFeatures(network.encoder, ("F3", "F1"))
    taps = network.encoder(x)
    assert all(torch.equal(a, b) for a, b in zip(features(x), (taps[2], taps[0]), strict=True))
    assert features.state_dict() == {}


def test_an_encoder_that_drifts_is_refused(tiny):
    with pytest.raises(ValueError, match="frozen"):
        EncoderFeatures(tiny(encoder_bn_mode="clip_denoising").encoder)
