"""The losses against numpy, and where the weights of the perceptual ones come from."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import derain.models as models
from derain.models.losses import DerainLoss, EncoderFeatures, VGGFeatures, build_loss


class Counting(nn.Module):
    """A perceptual term that counts its calls and is always 3."""

    calls = 0

    def forward(self, output, clean):  # noqa: ARG002
        self.calls += 1
        return torch.tensor(3.0)


def pictures(size=32):
    generator = torch.Generator().manual_seed(6)
    return torch.rand(2, 2, 3, size, size, generator=generator).unbind()


@pytest.fixture(scope="module")
def vgg16():
    """torchvision's VGG-16 with random weights, whole."""
    import torchvision

    torch.manual_seed(5)
    return torchvision.models.vgg16(weights=None, init_weights=False).features


def test_pixel_losses_match_numpy():
    output, clean = pictures()
    d = (output - clean).double().numpy()
    expected = {
        "l1": np.abs(d).mean(),
        "mse": (d**2).mean(),
        "charbonnier": np.sqrt(d**2 + 1e-6).mean(),
    }
    for name, value in expected.items():
        total, terms = DerainLoss(name)(output, clean)
        assert total.item() == pytest.approx(value, rel=1e-5)
        assert terms == {name: total}


def test_the_total_weighs_and_the_terms_do_not():
    output, clean = pictures()
    total, terms = DerainLoss("l1", 0.5, Counting())(output, clean)
    assert terms["perceptual"].item() == 3.0
    assert total.item() == pytest.approx(terms["l1"].item() + 1.5)


def test_lambda_zero_skips_the_perceptual_network():
    counting = Counting()
    _, terms = DerainLoss("l1", 0.0, counting)(*pictures())
    assert counting.calls == 0
    assert "perceptual" not in terms


def test_lambda_zero_needs_no_perceptual_weights(tmp_path):
    loss = build_loss("l1", 0.0, "vgg19", str(tmp_path / "missing.pt"), nn.Identity())
    assert list(loss.parameters()) == []


def test_vgg_loads_a_part_of_torchvisions_file_in_half_precision(vgg16, tmp_path):
    """The file ends after conv4_3; the loss is numpy's over hooks on torchvision's own layers."""
    kept = {f"features.{k}": v.half() for k, v in vgg16[:22].state_dict().items()}
    save_file(kept, tmp_path / "vgg16.safetensors")
    output, clean = pictures(24)
    found = VGGFeatures("vgg16", str(tmp_path / "vgg16.safetensors"))(output, clean)

    half = vgg16.half().float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    distances = []
    for last in (4, 9, 16, 23):  # the slices that end with relu1_2, relu2_2, relu3_3, relu4_3
        with torch.no_grad():
            a, b = (
                half[:last]((x - mean[:, None, None]) / std[:, None, None]).numpy()
                for x in (output, clean)
            )
        distances.append(np.abs(a - b).mean())
    assert found.item() == pytest.approx(np.mean(distances), rel=1e-4)


def test_vgg_trains_nothing_and_gives_a_gradient_to_the_output():
    loss = VGGFeatures("vgg16", "random")
    output, clean = pictures()
    output.requires_grad_()
    clean.requires_grad_()
    loss(output, clean).backward()
    assert output.grad.abs().sum() > 0
    assert clean.grad is None
    assert models.trained_parameters(loss) == {}


def test_vgg_with_random_weights_is_always_the_same():
    state = torch.get_rng_state()
    first = models.fingerprint(VGGFeatures("vgg19", "random"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert models.fingerprint(VGGFeatures("vgg19", "random")) == first


def test_vgg_weights_of_another_network_are_refused(vgg16, tmp_path):
    tensors = {f"features.{k}": v for k, v in vgg16.state_dict().items()}
    torch.save(tensors, tmp_path / "vgg16.pt")
    with pytest.raises(ValueError, match=r"vgg16\.pt"):
        VGGFeatures("vgg19", str(tmp_path / "vgg16.pt"))


def test_vgg_without_a_network_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nobody answers
    with pytest.raises(FileNotFoundError, match=r"vgg19.*give its path"):
        VGGFeatures("vgg19")


def test_encoder_features_match_numpy_over_the_taps(tiny):
    network = tiny()
    output, clean = pictures()
    pairs = zip(network.encode(output), network.encode(clean), strict=True)
    expected = np.mean([np.abs(a.numpy() - b.numpy()).mean() for a, b in pairs])
    found = EncoderFeatures(network.encoder)(output, clean)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_encoder_features_train_the_decoder_and_leave_the_encoder(tiny):
    network = tiny().train()
    loss = build_loss("l1", 1.0, "encoder", None, network)
    before = models.fingerprint(network.encoder)
    rainy, clean = pictures()
    _, terms = loss(network(rainy), clean)
    terms["perceptual"].backward()
    assert all(p.grad is not None for p in models.trained_parameters(network).values())
    assert all(p.grad is None for p in network.encoder.parameters())
    assert models.fingerprint(network.encoder) == before
    assert loss.state_dict() == {}


def test_an_encoder_that_drifts_is_no_measure(tiny):
    with pytest.raises(ValueError, match="frozen"):
        build_loss("l1", 1.0, "encoder", None, tiny(encoder_bn_mode="clip_denoising"))


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(ValueError, match="Identity"):
        build_loss("l1", 1.0, "encoder", None, nn.Identity())


def test_weights_without_a_network_to_put_them_into_are_refused():
    with pytest.raises(ValueError, match="takes no weights"):
        build_loss("l1", 1.0, "none", "vgg.pt", nn.Identity())


def test_build_loss_makes_the_loss_that_was_asked_for(tiny):
    loss = build_loss("charbonnier", 0.1, "vgg16", "random", tiny())
    assert isinstance(loss.perceptual, VGGFeatures)
    total, terms = loss(*pictures())
    expected = terms["charbonnier"] + 0.1 * terms["perceptual"]
    assert total.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("options", [("l3", 1.0, "none"), ("l1", -1.0, "none"), ("l1", 1.0, "x")])
@pytest.mark.usefixtures("unchecked")
def test_unfitting_options_are_refused(options):
    with pytest.raises(ValueError, match=r"pixel|lambda_p|perceptual"):
        build_loss(*options, None, nn.Identity())
